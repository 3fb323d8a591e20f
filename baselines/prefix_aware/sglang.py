"""SGLang's scheduler: prefills first, admission by an optimistic share of what running requests may still generate.

After `srt/managers/schedule_policy.py` and `schedule_batch.py` of sgl-project/sglang (2312.07104). What differs:

- Tokens are counted in the engine's blocks; chunks are as long as its token budget, not 8,192 tokens.
- All requests have the same bound on their outputs, the engine's `max_output_tokens`, cut to what memory holds.
- Requests of one batch share what the first of them computes (docs/engine.md), so SGLang's rule that all but the first
  of many requests with a common uncached beginning stand back has little to save here. `stand_back` switches it on.
- A retracted request goes to the end of the queue with what it has generated, as there.
- Should nothing run, the next request joins even if its bound does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infermax_gym.baselines.prefix_aware.orders import LPM_LIMIT, Candidate, Order
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

MOST_RESERVED = 4_096  # output tokens reserved per request at most
MOST_PREFILL = 16_384  # prefill tokens of an iteration at most
RETRACT_STEPS = 20  # decode steps that the share of a retraction looks ahead
COMMON_TOKENS = 32  # a beginning that is worth standing back for, if no more than that is cached


@dataclass(frozen=True)
class Sglang:
    """SGLang's scheduler with some order of the waiting queue.

    Attributes:
        name: kebab-case.
        order: makes the order of a run.
        note: one line, good and bad at.
        source: paper or code of the order.
        information: what it knows about output lengths: an upper bound on all.
        first_ratio: share of the outputs that may come which is reserved for running requests at first, ...
        last_ratio: ... and at last, ...
        decay_steps: ... after so many decode steps without a retraction.
        stand_back: a request with at most 32 cached tokens that shares 32 with one before it in the queue comes after
            all others, to find them cached next time. Above 128 waiting requests nobody stands back.

    Raises:
        ValueError: the ratios are no shares, the last above the first, or it takes no step from one to the other.
    """

    name: str
    order: Callable[[], Order]
    note: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    information: Information = Information.BOUND
    first_ratio: float = 0.7
    last_ratio: float = 0.098
    decay_steps: int = 600
    stand_back: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.last_ratio <= self.first_ratio <= 1.0:
            raise ValueError(
                f"policy {self.name!r}: expected 0 <= last_ratio <= first_ratio <= 1, got {self.last_ratio:g} and "
                f"{self.first_ratio:g}"
            )
        if self.decay_steps < 1:
            raise ValueError(f"policy {self.name!r}: decay_steps must be at least 1, got {self.decay_steps}")

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; nothing is random."""
        return simulate(workload, engine, SglangScheduler(self, workload, engine), record_schedule=record_schedule)


class SglangScheduler:
    """One run of it: a Python scheduler with its queue, its ratio and its order."""

    def __init__(self, row: Sglang, workload: Workload, engine: EngineConfig) -> None:
        self.name, self.information = row.name, row.information
        self.row = row
        self.order = row.order()
        self.tenant = workload.tenant.tolist()
        longest = int(workload.num_output_tokens.max(initial=1))
        bound = engine.max_output_tokens or 1 << (longest - 1).bit_length()
        capacity = engine.num_blocks * engine.block_size
        self.max_new = np.minimum(bound, np.maximum(capacity - workload.num_prompt_tokens, 1)).tolist()
        self.queue: list[int] = []  # as they came
        self.beginning = beginnings(workload) if row.stand_back else {}
        self.ratio = row.first_ratio
        self.full = False  # nobody may join before somebody leaves
        self.num_left_running = 0  # after the last decision

    def decide(self, view: OnlineView) -> Decision:
        """Prefills if there are any, else one token for every decode."""
        waiting = set(view.waiting.request.tolist())
        known = set(self.queue)
        self.queue = [r for r in self.queue if r in waiting]
        self.queue += [r for r in view.waiting.request.tolist() if r not in known]
        if len(view.running) < max(self.num_left_running, 1):
            self.full = False
        batch = _Prefills(self, view).batch
        self.num_left_running = len(view.running) + sum(r in waiting for r, _ in batch)
        return Decision(batch) if batch else self._decode(view)

    def may_come(self, request: int, generated: int) -> int:
        """Output tokens that a request is reckoned with at most."""
        return min(max(int(self.max_new[request]) - generated, 0), MOST_RESERVED)

    def _decode(self, view: OnlineView) -> Decision:
        running = view.running
        block_size = view.block_size
        decodes = [i for i in range(len(running)) if not running.is_prefill[i]]
        lacking = {
            i: int(-(-(running.num_computed_tokens[i] + 1) // block_size) - running.num_blocks[i]) for i in decodes
        }
        free = view.free_blocks
        # The last is retracted first: fewest generated tokens, then the longest prompt.
        decodes.sort(key=lambda i: (-running.num_generated_tokens[i], running.num_prompt_tokens[i]))
        victims = []
        while len(decodes) > 1 and sum(lacking[i] for i in decodes) > free:
            victim = decodes.pop()
            free += int(running.num_blocks[victim] - running.num_shared_blocks[victim])
            victims.append(int(running.request[victim]))
        if victims:
            self._retracted(running, decodes, victims)
        else:
            step = (self.row.first_ratio - self.row.last_ratio) / self.row.decay_steps
            self.ratio = max(self.ratio - step, self.row.last_ratio)
        served = sorted(decodes)[: view.max_num_batched_tokens]
        for i in served:
            self.order.decoded(self.tenant[int(running.request[i])])
        self.num_left_running = len(running) - len(victims)
        return Decision([(int(running.request[i]), 1) for i in served], victims)

    def _retracted(self, running: RequestsView, stay: list[int], victims: list[int]) -> None:
        """Victims queue again, and the share of those that stay is what they have shown to need."""
        generated = sum(int(running.num_generated_tokens[i]) for i in stay)
        may = sum(self.max_new[int(running.request[i])] for i in stay)
        self.ratio = min(1.0, (generated + RETRACT_STEPS * len(stay)) / max(may, 1))
        self.full = False
        self.queue += victims


def beginnings(workload: Workload) -> dict[int, tuple[int, ...]]:
    """The hashes of the first `COMMON_TOKENS` tokens of each request whose prompt has them all hashed."""
    size = workload.prefix_block_size
    if size == 0:
        return {}
    count = -(-COMMON_TOKENS // size)
    edges, prompts = workload.prefix_start.tolist(), workload.num_prompt_tokens.tolist()
    return {
        r: tuple(workload.prefix_blocks[edges[r] : edges[r] + count].tolist())
        for r in range(len(workload))
        if edges[r + 1] - edges[r] >= count and prompts[r] >= COMMON_TOKENS
    }


def standing_back(waiting: Sequence[Candidate], beginning: Mapping[int, tuple[int, ...]]) -> set[int]:
    """Requests whose uncached beginning is also that of one before them in the queue."""
    behind: set[int] = set()
    seen: set[tuple[int, ...]] = set()
    if len(waiting) > LPM_LIMIT:
        return behind
    for candidate in waiting:
        start = beginning.get(candidate.request)
        if start is None or candidate.cached > COMMON_TOKENS:
            continue
        if start in seen:
            behind.add(candidate.request)
        seen.add(start)
    return behind


class _Prefills:
    """The prefill batch of one decision: the request whose prompt was cut, and waiting requests."""

    def __init__(self, scheduler: SglangScheduler, view: OnlineView) -> None:
        self.scheduler, self.view = scheduler, view
        self.batch: list[tuple[int, int]] = []
        running = view.running
        cut = np.flatnonzero(running.is_prefill).tolist()
        self.free_blocks = view.free_blocks
        self.chunk = min(view.max_num_batched_tokens, MOST_PREFILL)
        self.num_running = len(running)
        if not cut and (scheduler.full or not scheduler.queue):
            return
        self.left = float(view.free_blocks * view.block_size)  # tokens that nobody is reckoned with
        for i in np.flatnonzero(~running.is_prefill).tolist():
            may_come = scheduler.may_come(int(running.request[i]), int(running.num_generated_tokens[i]))
            self.left -= scheduler.ratio * may_come
        for i in cut:
            self._go_on(i)
        if self.chunk > 0:
            self._admit()

    def _go_on(self, i: int) -> None:
        """The next chunk of a prompt that was cut."""
        running, block_size = self.view.running, self.view.block_size
        r, computed, held = int(running.request[i]), int(running.num_computed_tokens[i]), int(running.num_blocks[i])
        generated = int(running.num_generated_tokens[i])
        lacking = int(running.num_prompt_tokens[i]) + generated - computed
        tokens = min(lacking, self.chunk, (held + self.free_blocks) * block_size - computed)
        if tokens <= 0:
            self.chunk = 0
            return
        self._put(r, tokens, -(-(computed + tokens) // block_size) - held)
        if tokens < lacking:
            self.chunk = 0
        else:
            self.left -= self.scheduler.may_come(r, generated)
            self.scheduler.order.decoded(self.scheduler.tenant[r])

    def _admit(self) -> None:
        scheduler, view = self.scheduler, self.view
        place = {r: i for i, r in enumerate(view.waiting.request.tolist())}
        waiting = [self._candidate(place[r]) for r in scheduler.queue]
        behind = standing_back(waiting, scheduler.beginning)
        while waiting and self.chunk > 0:
            if self.num_running >= view.max_num_seqs:
                scheduler.full = True
                return
            first = [candidate for candidate in waiting if candidate.request not in behind] or waiting
            chosen = first[scheduler.order.choose(first)]
            if not self._add(chosen, place[chosen.request]):
                return
            waiting.remove(chosen)
            scheduler.queue.remove(chosen.request)
            scheduler.order.admitted(chosen)

    def _candidate(self, i: int) -> Candidate:
        waiting = self.view.waiting
        r, cached = int(waiting.request[i]), int(waiting.num_cached_tokens[i])
        known = int(waiting.num_prompt_tokens[i] + waiting.num_generated_tokens[i])
        extend, waited_s = known - cached, self.view.clock_s - float(waiting.arrival_s[i])
        blocks, has_begun = self.view.blocks_for(extend), bool(waiting.num_generated_tokens[i] > 0)
        return Candidate(r, self.scheduler.tenant[r], cached, extend, blocks, waited_s, has_begun)

    def _add(self, chosen: Candidate, i: int) -> bool:
        """Admit a request if memory is likely to last; False if it is not."""
        scheduler, waiting, block_size = self.scheduler, self.view.waiting, self.view.block_size
        shared = int(waiting.num_shared_blocks[i])
        generated = int(waiting.num_generated_tokens[i])
        may_come = scheduler.may_come(chosen.request, generated)
        # What it finds and nobody holds is free no longer once it is held.
        found_free = chosen.cached - shared * block_size
        computed = -(-chosen.extend // block_size) * block_size
        alone = self.num_running == 0
        if not alone and computed + found_free + may_come >= self.left:
            scheduler.full = True
            return False
        room = (self.free_blocks + shared) * block_size - chosen.cached
        tokens = min(chosen.extend, self.chunk, room)
        if tokens <= 0:
            scheduler.full = not alone
            return False
        self.left -= found_free
        self._put(chosen.request, tokens, -(-(chosen.cached + tokens) // block_size) - shared)
        self.num_running += 1
        if tokens < chosen.extend:
            self.chunk = 0
        else:
            self.left -= may_come
            scheduler.order.decoded(chosen.tenant)
        return True

    def _put(self, request: int, tokens: int, num_blocks: int) -> None:
        self.batch.append((request, tokens))
        self.chunk -= tokens
        self.free_blocks -= num_blocks
        self.left -= -(-tokens // self.view.block_size) * self.view.block_size
