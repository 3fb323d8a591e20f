"""Nested WAIT (arXiv 2504.11320): answers pass gates at certain lengths, and a gate opens for enough of them at once.

The gates stand before the prefill and at `gates` generated tokens. Whoever has come to a gate waits there, its KV held,
until a threshold of requests stands at it: `first_threshold` before the prefill, at later gates the share of it that
outlives them, learned from the answers that have ended, at least 1. Gates are scanned in order, and scanning stops at
the first that stays closed. Waiting requests need room for their prompts; nobody is dropped.

Two liberties: if nothing could run otherwise, the gates open (so that the end of a trace is served, and an idle
engine does not wait for a threshold), and where decodes lack memory the newest request is preempted, where the paper
sizes thresholds so that this is unlikely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from infermax_gym.engine import (
    Decision,
    EngineConfig,
    Information,
    OnlineView,
    RequestsView,
    SimulationResult,
    simulate,
)
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class NestedWait:
    """A player of Nested WAIT.

    Attributes:
        first_threshold: requests that must wait before prefills begin.
        gates: generated tokens at which answers wait for company, rising.
    """

    name: str = "nested-wait"
    first_threshold: int = 8
    gates: tuple[int, ...] = (64, 256, 1024)
    information: Information = Information.NONE
    source: str = "Nested WAIT (2504.11320): gates at 0, 64, 256, 1,024 tokens; thresholds 8 x the share that outlives"
    note: str = "Serves in convoys without knowing lengths; answers pause at the gates."

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; nothing is random."""
        return simulate(workload, engine, _Gatekeeper(self), record_schedule=record_schedule)


@dataclass
class _Gatekeeper:
    """The rule at work in one run."""

    rule: NestedWait
    name: str = "nested-wait"
    information: Information = Information.NONE
    passed: dict[int, int] = field(default_factory=dict)  # gates behind each running request
    progress: dict[int, int] = field(default_factory=dict)  # generated tokens when last seen
    ended: list[int] = field(default_factory=list)  # lengths of answers that have ended

    def decide(self, view: OnlineView) -> Decision:
        self._learn(view)
        decision = self._build(view, self._open_gates(view))
        return decision if decision.batch or decision.preempt else self._build(view, None)

    def _learn(self, view: OnlineView) -> None:
        """Whoever is neither waiting nor running any more has ended, one token after it was last seen."""
        present = np.concatenate([view.waiting.request, view.running.request]).tolist()
        generated = np.concatenate([view.waiting.num_generated_tokens, view.running.num_generated_tokens]).tolist()
        now = dict(zip(present, generated, strict=True))
        self.ended += [tokens + 1 for request, tokens in self.progress.items() if request not in now]
        self.progress = now

    def _threshold(self, gate: int) -> int:
        """Requests that open a gate, counted from 0, that before the prefill."""
        if gate == 0 or not self.ended:
            return self.rule.first_threshold if gate == 0 else 1
        outlive = sum(length > self.rule.gates[gate - 1] for length in self.ended) / len(self.ended)
        return max(1, math.ceil(self.rule.first_threshold * outlive))

    def _open_gates(self, view: OnlineView) -> int:
        """How many gates are open, from the first on."""
        at = [len(view.waiting), *(0 for _ in self.rule.gates)]
        for request, generated in zip(view.running.request.tolist(), view.running.num_generated_tokens, strict=True):
            gate = self._stands_at(request, int(generated))
            if gate is not None:
                at[gate] += 1
        for gate, count in enumerate(at):
            if count < self._threshold(gate):
                return gate
        return len(at)

    def _stands_at(self, request: int, generated: int) -> int | None:
        """The gate that a running request has come to and not passed, or None."""
        behind = self.passed.get(request, 0)
        if behind < len(self.rule.gates) and generated >= self.rule.gates[behind]:
            return behind + 1
        return None

    def _build(self, view: OnlineView, num_open: int | None) -> Decision:
        """Decodes and prefills in list order, then waiting requests; None opens all gates."""
        running, free, budget = view.running, view.free_blocks, view.max_num_batched_tokens
        batch: list[tuple[int, int]] = []
        victims: list[int] = []
        last = len(running)
        for prefills in (False, True):
            position = 0
            while position < last and budget > 0:
                request = int(running.request[position])
                gate = self._stands_at(request, int(running.num_generated_tokens[position]))
                held = gate is not None and num_open is not None and gate >= num_open
                if bool(running.is_prefill[position]) != prefills or (held and not prefills):
                    position += 1
                    continue
                tokens = min(_lacking(running, position), budget)
                needed = _blocks(view, running.num_computed_tokens[position] + tokens) - running.num_blocks[position]
                while needed > free and last > position + 1 and int(running.request[last - 1]) not in dict(batch):
                    last -= 1
                    victims.append(int(running.request[last]))
                    free += int(running.num_blocks[last])
                if needed <= free:
                    free -= max(int(needed), 0)
                    batch.append((request, tokens))
                    budget -= tokens
                    if gate is not None:
                        self.passed[request] = gate
                position += 1
        if (num_open is None or num_open > 0) and not victims:
            self._admit(view, batch, free, budget)
        if num_open is None and not batch and last > 1:  # nobody finds a block: the newest makes room for the oldest
            victims.append(int(running.request[last - 1]))
        return Decision(batch, victims)

    def _admit(self, view: OnlineView, batch: list[tuple[int, int]], free: int, budget: int) -> None:
        for position in range(min(len(view.waiting), view.max_num_seqs - len(view.running))):
            lacking = _lacking(view.waiting, position)
            needed = _blocks(view, lacking)
            if budget == 0 or needed > free:
                return
            free -= needed
            tokens = min(lacking, budget)
            batch.append((int(view.waiting.request[position]), tokens))
            budget -= tokens


def _lacking(requests: RequestsView, position: int) -> int:
    known = requests.num_prompt_tokens[position] + requests.num_generated_tokens[position]
    return int(known - requests.num_computed_tokens[position])


def _blocks(view: OnlineView, num_tokens: int) -> int:
    return -(-int(num_tokens) // view.block_size)
