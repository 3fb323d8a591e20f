"""The order of the running list, who is preempted, and how many decodes an iteration will serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.policy import PhaseOrder, Policy, RunOrder, Victim
from infermax_gym.vllm.keys import Weights, processed, victim_score
from infermax_gym.vllm.requests import Seen


class Memory(Protocol):
    """What is asked of the KV cache."""

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""

    def held_tokens(self, entry: Seen) -> int:
        """Tokens that a running request's blocks hold."""

    def freed_blocks(self, entry: Seen) -> int:
        """Blocks that preempting a running request frees."""


@dataclass(frozen=True, eq=False)
class RunningNumbers:
    """Everybody that runs, in numbers.

    Attributes:
        known: (running,) float64 prompt and output tokens.
        generated: (running,) float64 output tokens.
        computed: (running,) KV tokens resident.
        in_prefill: (running,) bool, whether no pass since the admission has completed the known tokens.
    """

    known: NDArray[np.float64]
    generated: NDArray[np.float64]
    computed: NDArray[np.int64]
    in_prefill: NDArray[np.bool_]


class RunningList:
    """The running list in the policy's own order, which outlasts the order in which vLLM serves it.

    Args:
        policy: the policy; a controller moves `victim_weights` from there on.
        queue_score: the key that QUEUE_KEY sorts by.
    """

    def __init__(self, policy: Policy, queue_score: Callable[[Seen], float]) -> None:
        self._queue_score = queue_score
        self._list: list[Seen] = []
        self.install(policy)

    def install(self, policy: Policy) -> None:
        """Follow another policy from now on."""
        self._order = policy.run_order
        self._decodes_first = policy.phase_order == PhaseOrder.DECODE_FIRST
        self._victim = policy.victim
        self.victim_weights: Weights = policy.victim_weights

    @property
    def entries(self) -> Sequence[Seen]:
        """Everybody that runs, in the policy's order."""
        return self._list

    def numbers(self) -> RunningNumbers:
        """The list in numbers, in its order."""
        requests = [entry.request for entry in self._list]
        known = np.array([r.num_tokens + r.num_output_placeholders for r in requests], np.float64)
        prompts = np.array([r.num_prompt_tokens for r in requests], np.float64)
        admitted = np.array([entry.known_at_admission for entry in self._list], np.float64)
        computed = np.array([r.num_computed_tokens for r in requests], np.int64)
        return RunningNumbers(known, known - prompts, computed, (admitted < 0.0) | (known == admitted))

    def join(self, entry: Seen) -> None:
        """Append a request that has been admitted."""
        self._list.append(entry)

    def leave(self, entry: Seen) -> None:
        """Take out a request that has been preempted, finished or aborted."""
        if entry in self._list:
            self._list.remove(entry)

    def adopt(self, entries: Sequence[Seen]) -> None:
        """Be the list that vLLM has, if it has others."""
        if len(entries) != len(self._list) or {e.number for e in entries} != {e.number for e in self._list}:
            self._list = list(entries)

    def sort(self, guarded: bool) -> list[Seen]:
        """Put the list in the policy's order; returns it in the order in which vLLM is to serve it."""
        entries = self._list
        if guarded or self._order == RunOrder.ARRIVAL:
            entries.sort(key=attrgetter("number"))
        elif self._order == RunOrder.PROCESSED_DESC:
            entries.sort(key=lambda entry: -processed(entry))
        elif self._order == RunOrder.QUEUE_KEY:
            entries.sort(key=self._queue_score)
        if not self._decodes_first:
            return list(entries)
        prefills = [entry.in_prefill for entry in entries]
        decodes = [entry for entry, in_prefill in zip(entries, prefills, strict=True) if not in_prefill]
        return decodes + [entry for entry, in_prefill in zip(entries, prefills, strict=True) if in_prefill]

    def relist(self, batch: Sequence[Seen], guarded: bool) -> None:
        """For run orders that follow the batch: those left out, by arrival, then the batch as it was built."""
        if guarded or self._order not in (RunOrder.BATCH, RunOrder.PROCESSED_DESC):
            return
        served = {entry.number for entry in batch}
        left_out = sorted((e for e in self._list if e.number not in served), key=attrgetter("number"))
        self._list = left_out + list(batch)

    def pick_victim(self, entry: Seen, call: int, guarded: bool) -> Seen:
        """Who makes room for a running request: one behind it that has got no tokens in this call, or itself."""
        behind = self._list[self._list.index(entry) + 1 :]
        return self._pick([other for other in behind if other.granted_in != call], guarded) or entry

    def _pick(self, candidates: Sequence[Seen], guarded: bool) -> Seen | None:
        if not candidates:
            return None
        if guarded or self._victim == Victim.LIST_TAIL:
            return candidates[-1]
        best, best_score = candidates[0], victim_score(candidates[0], self.victim_weights)
        for other in candidates[1:]:
            score = victim_score(other, self.victim_weights)
            if score > best_score:
                best, best_score = other, score
        return best

    def served_decodes(self, memory: Memory, budget: int, block_size: int, guarded: bool) -> int:
        """How many decodes will get a token before the first prefill is served."""
        decodes = [entry for entry in self._list if not entry.in_prefill]
        growing = {entry.number for entry in decodes if entry.computed + 1 > memory.held_tokens(entry)}
        free = memory.free_blocks
        if len(growing) <= free and len(decodes) <= budget:
            return len(decodes)
        left = list(self._list)
        served: set[int] = set()
        while len(served) < budget:
            entry = next((e for e in left if not e.in_prefill and e.number not in served), None)
            if entry is None:
                break
            while entry.number in growing and free < 1:
                behind = left[left.index(entry) + 1 :]
                victim = self._pick([e for e in behind if e.number not in served], guarded) or entry
                left.remove(victim)
                free += memory.freed_blocks(victim)
                if victim is entry:
                    return len(served)
            free -= entry.number in growing
            served.add(entry.number)
        return len(served)
