"""Whether a waiting request may join, and how much memory it reserves: `infermax_gym.engine.kernel.fit` in Python."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.policy import AdmissionCheck, LengthEstimate, Policy, Reserve
from infermax_gym.vllm.history import History
from infermax_gym.vllm.requests import Seen

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel


@dataclass(frozen=True)
class Limits:
    """The replica.

    Attributes:
        num_blocks: KV blocks that requests may hold.
        block_size: tokens per block.
        token_budget: tokens per iteration.
        max_num_seqs: most requests running at once.
        max_model_len: longest prompt + output, tokens.
        max_output_tokens: upper bound on output lengths.
    """

    num_blocks: int
    block_size: int
    token_budget: int
    max_num_seqs: int
    max_model_len: int
    max_output_tokens: int

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return (num_tokens + self.block_size - 1) // self.block_size

    def engine(self, cost: CostModel) -> EngineConfig:
        """The replica as the simulator has it."""
        return EngineConfig(
            cost=cost,
            num_kv_tokens=self.num_blocks * self.block_size,
            block_size=self.block_size,
            max_num_batched_tokens=self.token_budget,
            max_num_seqs=self.max_num_seqs,
        )


@dataclass(frozen=True)
class Candidate:
    """A waiting request that vLLM would admit now.

    Attributes:
        entry: the request.
        found_tokens: KV tokens that it finds in the prefix cache.
        num_new_tokens: tokens of its first chunk.
        found_held: of the blocks found, those that others hold.
    """

    entry: Seen
    found_tokens: int
    num_new_tokens: int
    found_held: int


class Admission:
    """The fit test of a policy.

    Args:
        policy: the policy; a controller moves `headroom_tokens` from there on.
        limits: the replica.
        history: of finished requests.
    """

    def __init__(self, policy: Policy, limits: Limits, history: History) -> None:
        self._limits = limits
        self._history = history
        self.install(policy)

    def install(self, policy: Policy) -> None:
        """Follow another policy from now on."""
        self._policy = policy
        self._watermark_blocks = math.floor(policy.watermark * self._limits.num_blocks)
        self.headroom_tokens = policy.headroom_tokens

    def reserved_tokens(self, candidate: Candidate) -> int:
        """Tokens that a candidate gets blocks for on admission."""
        entry, kind = candidate.entry, self._policy.reserve
        tokens = entry.known
        if kind == Reserve.CHUNK:
            tokens = candidate.found_tokens + candidate.num_new_tokens
        elif kind == Reserve.TOTAL_ESTIMATE:
            tokens = max(entry.known, entry.prompt + self.output_estimate(entry) - 1)
        elif kind == Reserve.MODEL_LENGTH:
            tokens = max(entry.known, self._limits.max_model_len)
        return min(tokens, self._limits.num_blocks * self._limits.block_size)

    def fits(self, candidate: Candidate, reserved_tokens: int, free_blocks: int, running: Iterable[Seen]) -> bool:
        """Whether a candidate fits with its reservation.

        Args:
            candidate: who would join.
            reserved_tokens: as `reserved_tokens` says.
            free_blocks: that nobody holds.
            running: everybody that runs.
        """
        limits = self._limits
        others = list(running)
        reserved = limits.blocks_for(reserved_tokens)
        free = free_blocks + candidate.found_held
        if not others:
            return reserved <= free
        rest = free - self._checked_blocks(candidate.entry, reserved)
        if rest < self._watermark_blocks or rest * limits.block_size < self.headroom_tokens * len(others):
            return False
        if self._policy.admission_check == AdmissionCheck.FUTURE_PEAK:
            most = (1.0 - self._policy.peak_margin) * limits.num_blocks * limits.block_size
            return self._future_peak([*others, candidate.entry]) <= most
        return True

    def output_estimate(self, entry: Seen) -> int:
        """Output tokens that the policy counts on, whole."""
        kind, bound, generated = self._policy.estimate, self._limits.max_output_tokens, entry.generated
        if kind == LengthEstimate.BOUND:
            return bound
        if kind == LengthEstimate.PREDICTED:
            return math.ceil(entry.prediction)
        if kind == LengthEstimate.HISTORY:
            learned = self._history.output_estimate(generated)
            if learned > 0:
                return min(bound, max(learned, generated + 1))
        return min(bound, max(math.ceil(1.1 * generated), 1024))

    def _checked_blocks(self, entry: Seen, reserved: int) -> int:
        """Blocks that must be free: the reservation, or what the policy's check asks beyond it."""
        limits, kind = self._limits, self._policy.admission_check
        needed = reserved
        if kind == AdmissionCheck.KNOWN:
            needed = max(reserved, limits.blocks_for(entry.known))
        elif kind == AdmissionCheck.HISTOGRAM:
            needed = max(reserved, limits.blocks_for(max(entry.known, self._history.mean_total(entry.prompt))))
        return min(needed, limits.num_blocks)

    def _future_peak(self, entries: list[Seen]) -> float:
        """Most KV tokens that some requests will ever need, if nobody else joins."""
        needs = sorted(
            (
                (max(self.output_estimate(entry) - entry.generated - 1, 0), entry.known + self._limits.block_size - 1)
                for entry in entries
            ),
            key=lambda need: -need[0],
        )
        peak, present = 0.0, 0
        for place, (rest, need) in enumerate(needs, 1):
            present += need
            peak = max(peak, rest * place + present)
        return peak
