"""The state of the engine between decisions, and of one decision while it is made."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.policy import PhaseOrder, Policy, RunOrder, Victim, VictimPool
from infermax_gym.workload.workload import Workload
from tests.reference.cache import PrefixCache
from tests.reference.duration import Duration
from tests.reference.request import Request
from tests.reference.waiting import WaitingQueue


def next_power_of_two(value: int) -> int:
    """The smallest power of two that is not below `value`."""
    return 1 << (value - 1).bit_length()


class Engine:
    """One replica under one policy. Upper-case letters are those of docs/engine.md."""

    def __init__(self, workload: Workload, config: EngineConfig, policy: Policy) -> None:
        self.config = config
        self.policy = policy
        self.b = config.block_size
        self.N = config.num_blocks
        self._set_effective_values(workload)

        self.clock_s = 0.0
        self.duration = Duration(config.cost)
        self.service: defaultdict[int, float] = defaultdict(float)
        self.queue = WaitingQueue(policy, self.duration, self.service)
        self.running: list[Request] = []
        self.free = self.N
        self.keepers: list[Request] = []  # finished, with their blocks until nothing runs (release_at_batch_end)
        self.cache = PrefixCache(workload, self.b, self.N, config.empty_blocks_first) if config.prefix_caching else None
        self.host_free = config.num_host_kv_tokens
        self.swapped_tokens = 0  # since the last iteration, for the next one to bear
        self.pending_swap_tokens = 0  # whose transfer beside the computation is not over
        self.swap_share = 0.0  # of the first of them, what is over

        self.histogram_count = [0] * 64
        self.histogram_sum = [0] * 64
        self.finished_outputs: list[int] = []
        self.busy_s = 0.0
        self.num_iterations = 0
        self.is_known_to_come = self.is_unsent = False  # somebody with a known arrival, or at all
        self.last_prefill_duration_s = 0.0
        self.iterations_since_admission: int | None = None  # those without prefill tokens
        self.last_prefill_iteration = -math.inf  # counted from 1
        self.prefills_backed_up = False
        self.lingering: list[Request] = []  # finished, with their places and blocks until a decision (asynchronous)
        self.seen_until_s = 0.0
        self.iterations_without_token = 0
        self.num_computed = self.num_recomputed = self.num_cached = 0  # tokens so far
        self.wasteful = False

    @property
    def keys_at_s(self) -> float:
        """The clock at which moving keys stand: with asynchronous scheduling, when the iteration under way began."""
        return self.seen_until_s if self.config.async_scheduling else self.clock_s

    def _set_effective_values(self, workload: Workload) -> None:
        """The paragraph "Effective values"."""
        config, policy = self.config, self.policy
        outputs = workload.num_output_tokens
        longest = int(np.max(workload.num_prompt_tokens + outputs, initial=1))
        longest_output = int(np.max(outputs, initial=1))
        self.max_model_len = config.max_model_len or next_power_of_two(longest)
        self.max_output_tokens = config.max_output_tokens or next_power_of_two(longest_output)
        self.C = policy.max_num_batched_tokens or config.max_num_batched_tokens
        if not policy.chunking:
            self.C = max(self.C, self.max_model_len)
        self.B = min(config.max_num_seqs, policy.max_running or config.max_num_seqs)
        self.watermark_blocks = math.floor(policy.watermark * self.N)

    def blocks(self, num_tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-num_tokens // self.b)

    @property
    def seat_is_free(self) -> bool:
        """Whether one more request may run."""
        return self.has_place_beside(len(self.running))

    def has_place_beside(self, num_running: int) -> bool:
        """Whether one more request may run beside so many."""
        return num_running + len(self.lingering) < self.B

    def let_go(self) -> bool:
        """Those who linger leave; whether there were any."""
        lingering, self.lingering = self.lingering, []
        for request in lingering:
            self.release(request)
        return bool(lingering)

    @property
    def more_to_come(self) -> bool:
        """Whether somebody may still arrive before those that wait are admitted."""
        return self.is_known_to_come or (self.is_unsent and bool(self.running))

    @property
    def guard_holds(self) -> bool:
        """The paragraph "Progress guard"."""
        passes = -(-self.N * self.b // min(self.C, self.policy.max_chunk))
        return self.wasteful or self.iterations_without_token > 64 + 2 * passes

    def watch_waste(self, has_finished: bool) -> None:
        """The paragraph "Progress guard", what it says of recomputed tokens."""
        needed = self.num_computed - self.num_recomputed + self.num_cached
        if self.num_recomputed > 32 * (needed + self.N * self.b):
            self.wasteful = True
        elif has_finished:
            self.wasteful = False

    def drain_swaps(self, duration_s: float) -> None:
        """Transfers beside the computation go on for so long."""
        done = self.swap_share + duration_s * self.config.swap_tokens_per_s
        if done >= self.pending_swap_tokens:
            self.pending_swap_tokens, self.swap_share = 0, 0.0
        else:
            self.pending_swap_tokens -= int(done)
            self.swap_share = done - int(done)

    @property
    def policy_now(self) -> Policy:
        """The policy, or the tame version of it that the progress guard puts in its place."""
        if not self.guard_holds:
            return self.policy
        return replace(
            self.policy,
            run_order=RunOrder.ARRIVAL,
            victim=Victim.LIST_TAIL,
            victim_pool=VictimPool.UNVISITED,
            preempt_for_waiting=False,
            evict_share=0.0,
        )

    @property
    def batch_is_certain(self) -> bool:
        """Whether who has got tokens when waiting requests are admitted keeps them."""
        prefills_first = self.policy.phase_order == PhaseOrder.PREFILL_FIRST and self.policy.hybrid
        decodes_last = prefills_first or self.policy.hold_iterations > 0.0
        anybody = self.policy.victim_pool == VictimPool.ALL or self.policy.evict_share > 0.0
        return not (decodes_last and anybody)

    def found(self, request: Request) -> tuple[int, int]:
        """Blocks that a waiting request finds in the cache, and how many of them somebody holds."""
        matches = self.cache.matches(request) if self.cache else []
        return len(matches), sum(block.holders > 0 for block in matches)

    def blocks_alone(self, request: Request) -> int:
        """Blocks that would be free without this running request."""
        return self.cache.alone(request) if self.cache else request.held

    def join(self, request: Request, num_blocks: int) -> None:
        """Put a request at the end of the running list, with its blocks, those included that it finds."""
        if self.cache:
            self._start(request, self.cache)
        self.take(request, num_blocks - request.held)
        request.is_running = True
        self.running.append(request)

    def _start(self, request: Request, cache: PrefixCache) -> None:
        """The paragraph "Admission" of the section "Prefix cache"."""
        matches = cache.matches(request)
        cache.start(request, matches)
        self.free = len(cache.unheld)
        request.held = len(matches)
        if not request.on_host:
            request.resident = len(matches) * self.b
            again = min(request.num_lost_tokens, request.resident)
            request.num_recomputed_tokens -= again
            self.num_recomputed -= again
            request.num_cached_tokens += request.resident - again
            self.num_cached += request.resident - again
            request.num_lost_tokens = 0

    def take(self, request: Request, num_blocks: int) -> None:
        """Give a request more blocks."""
        assert num_blocks <= self.free
        self.free -= num_blocks
        request.held += num_blocks
        if self.cache:
            self.cache.take(request, num_blocks)

    def publish(self, request: Request, num_tokens: int) -> None:
        """Let others find a request's full blocks."""
        if self.cache:
            self.cache.publish(request, num_tokens)
            self.free = len(self.cache.unheld)

    def leave(self, request: Request, keep_blocks: bool = False) -> None:
        """Take a request off the running list; its blocks become free, at the latest when nothing runs."""
        self.running.remove(request)
        request.is_running = False
        if keep_blocks:
            self.keepers.append(request)
        elif self.config.async_scheduling and request.status == "finished":
            self.lingering.append(request)
        else:
            self.release(request)
        if not self.running:
            for keeper in self.keepers:
                self.release(keeper)
            self.keepers.clear()

    def release(self, request: Request) -> None:
        """Free a request's blocks."""
        self.free += request.held
        request.held = 0
        if self.cache:
            self.cache.release(request)
            self.free = len(self.cache.unheld)


@dataclass
class Decision:
    """One decision in the making.

    Attributes:
        policy: the knobs that hold for it.
        something_ran: whether the running list was not empty when it began.
        tokens_left: what is left of the budget C.
        prefill_tokens_left: what is left of the prefill tokens.
        batch: tokens per request, in the order in which they were granted.
        preempted: who was preempted, in order.
        preempted_in_serve: whether somebody was preempted while running requests or waiting requests were served.
        share_cleared: whether `evict_share` has had its victims.
        serving_ended: a request that preempted itself ended the serving of running requests.
        num_resumed: how many came back from the host.
        num_admitted: how many waiting requests joined.
        swapped_tokens: tokens that moved to the host or back.
        decodes_run: whether some decode was running when serving began.
        is_alone: whether one request ran or waited then.
        prefills_held: whether `prefill_interval` gives prefills nothing.
    """

    policy: Policy
    something_ran: bool
    tokens_left: int
    prefill_tokens_left: int = 0
    batch: dict[Request, int] = field(default_factory=dict)
    preempted: list[Request] = field(default_factory=list)
    preempted_in_serve: bool = False
    share_cleared: bool = False
    serving_ended: bool = False
    num_resumed: int = 0
    num_admitted: int = 0
    swapped_tokens: int = 0
    decodes_run: bool = False
    is_alone: bool = False
    prefills_held: bool = False

    def grant(self, request: Request, num_tokens: int) -> None:
        """Put tokens of a request into the batch, at the end."""
        self.batch[request] = num_tokens
        self.tokens_left -= num_tokens
        if not request.is_decode:
            self.prefill_tokens_left -= num_tokens

    def take_back(self, request: Request) -> None:
        """Take a request out of the batch, if it is there; its tokens return to the budget."""
        num_tokens = self.batch.pop(request, 0)
        self.tokens_left += num_tokens
        if not request.is_decode:
            self.prefill_tokens_left += num_tokens
