"""Policies without units: sizes as shares of what an engine has and of what it could do at best.

A cap of 64 sequences or a budget of 512 tokens means something else on every engine. What means the same everywhere is
how much of the engine's best throughput a size keeps: a smaller prefill budget makes iterations shorter for those who
decode, and fewer decodes at once end sooner, at the price of throughput. `Shares.resolve` turns such shares into the
knobs of a `Policy` for one engine, by its cost model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost import CostModel
from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.policy import Information, Policy, QueueOrder, Victim, queue_weights, victim_weights

if TYPE_CHECKING:
    from infermax_gym.engine import SimulationResult
    from infermax_gym.workload import Workload

TYPICAL_CONTEXT = 1024
"""KV tokens that a decode reads, where nobody has seen the traffic yet."""

TYPICAL_OUTPUT = 256
"""Output tokens of a request, likewise."""


@dataclass(frozen=True)
class Shares:
    """A policy whose sizes are resolved for an engine.

    Attributes:
        base: the policy, whose other knobs have no unit or are in seconds of the engine's own.
        prefill_efficiency: the token budget is the least with which prefills alone reach this share of the throughput
            that the engine's own budget allows; None: the engine's budget.
        decode_efficiency: at most so many requests run as decodes need to reach this share of the throughput that the
            engine's sequences and memory allow; None: all of them.
        headroom: KV tokens that stay free for each running request when one joins, as a share of a mean output.

    Raises:
        ValueError: an efficiency is not in (0, 1], `headroom` is negative, or `base` has a cap or a budget of its own.

    Example:
        >>> from infermax_gym.engine import EngineConfig
        >>> engine = EngineConfig(max_num_batched_tokens=8192)
        >>> SPF_SHARE.resolve(engine).max_num_batched_tokens < 8192
        True
    """

    base: Policy
    prefill_efficiency: float | None = None
    decode_efficiency: float | None = None
    headroom: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prefill_efficiency", "decode_efficiency"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value <= 1.0:
                raise ValueError(f"policy {self.name!r}: {name} must be in (0, 1], got {value}")
        if not 0.0 <= self.headroom < np.inf:
            raise ValueError(f"policy {self.name!r}: headroom must be at least 0 and finite, got {self.headroom}")
        if self.base.max_running is not None or self.base.max_num_batched_tokens is not None:
            raise ValueError(f"policy {self.name!r}: its base must leave cap and budget to the shares")

    @property
    def name(self) -> str:
        """Kebab-case."""
        return self.base.name

    @property
    def source(self) -> str:
        """Where the rule comes from."""
        return self.base.source

    @property
    def note(self) -> str:
        """One line, good and bad at."""
        return self.base.note

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        return self.base.information

    def resolve(self, engine: EngineConfig, context: float = TYPICAL_CONTEXT, output: float = TYPICAL_OUTPUT) -> Policy:
        """The policy of the table that this is on an engine.

        Args:
            engine: the replica.
            context: KV tokens that a decode reads, as far as is known.
            output: output tokens of a mean request, likewise.
        """
        policy = self.base
        if self.prefill_efficiency is not None:
            budget = efficient_budget(engine, self.prefill_efficiency)
            policy = replace(policy, max_num_batched_tokens=budget)
        if self.decode_efficiency is not None:
            policy = replace(policy, max_running=efficient_running(engine, self.decode_efficiency, context))
        if self.headroom > 0.0:
            policy = replace(policy, headroom_tokens=self.headroom * output)
        return policy

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end."""
        from infermax_gym.engine import simulate

        return simulate(workload, engine, self.resolve(engine), record_schedule=record_schedule)


def iteration_seconds(cost: CostModel, batches: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) seconds of iterations with (k, 9) batch features."""
    total = np.zeros(len(batches))
    for terms, choice in ((cost.terms, np.max), (cost.min_terms, np.min)):
        for term in terms:
            total += choice(batches @ np.array(term).T, axis=1)
    return total


def decode_seconds(cost: CostModel, counts: NDArray[np.float64], context: float) -> NDArray[np.float64]:
    """(k,) seconds of iterations of (k,) decodes alone, each of which reads so many KV tokens."""
    n = np.asarray(counts, np.float64)
    zero, one = np.zeros_like(n), np.ones_like(n)
    return iteration_seconds(cost, np.stack([one, n, zero, zero, zero, zero, one, n * context, n], axis=1))


def prefill_seconds(cost: CostModel, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) seconds of iterations with one whole prompt of (k,) tokens and nothing else."""
    n = np.asarray(tokens, np.float64)
    zero, one = np.zeros_like(n), np.ones_like(n)
    return iteration_seconds(cost, np.stack([one, n, one, n * n, one, zero, zero, zero, zero], axis=1))


def sizes_up_to(most: float) -> NDArray[np.float64]:
    """Whole numbers from 1 to `most`, at equal ratios."""
    return np.unique(np.round(np.geomspace(1.0, max(float(int(most)), 1.0), 129)))


def fewest(sizes: NDArray[np.float64], seconds: NDArray[np.float64], share: float) -> int:
    """The smallest of some sizes that keeps a share of the best rate, size over seconds."""
    rates = sizes / seconds
    return int(sizes[int(np.argmax(rates >= share * rates.max()))])


def efficient_budget(engine: EngineConfig, share: float) -> int:
    """The fewest prefill tokens of an iteration that reach a share of the best prefill throughput."""
    sizes = sizes_up_to(engine.max_num_batched_tokens)
    return fewest(sizes, prefill_seconds(engine.cost, sizes), share)


def efficient_running(engine: EngineConfig, share: float, context: float) -> int:
    """The fewest decodes of an iteration that reach a share of the best decode throughput."""
    sizes = sizes_up_to(min(engine.num_kv_tokens / max(context, 1.0), engine.max_num_seqs))
    return fewest(sizes, decode_seconds(engine.cost, sizes, context), share)


SPF_SHARE = Shares(
    Policy(
        "spf-share",
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(prefill_s=1.0),
        watermark=0.01,
        source="ours: shortest prefill first; a token budget that keeps 90 % of the best prefill throughput",
        note="spf-headroom for any engine: short iterations where the engine's budget is larger than it needs.",
    ),
    prefill_efficiency=0.9,
)
SPF_AGING_SHARE = replace(
    SPF_SHARE,
    base=replace(
        SPF_SHARE.base,
        name="spf-aging-share",
        queue_weights=queue_weights(prefill_s=1.0, arrival_s=0.003),
        source="ours: the same with 3 ms of prefill as credit per second waited",
        note="Gives some of the mean back for a shorter tail.",
    ),
)
FCFS_SHARE = replace(
    SPF_SHARE,
    base=Policy(
        "fcfs-share",
        watermark=0.01,
        source="ours: first come, first served with the budget of spf-share",
        note="Decodes run smoothly on any engine; long prompts hold up the queue.",
    ),
)
SPF_HEADROOM_SHARE = replace(
    SPF_SHARE,
    base=replace(
        SPF_SHARE.base,
        name="spf-headroom-share",
        watermark=0.0,
        victim=Victim.KEY,
        victim_weights=victim_weights(num_processed_tokens=-1.0),
        source="ours: spf-share that keeps a quarter of a mean output free per running request; fewest-cached victim",
        note="Few evictions where memory is tight; costs a little where it is not.",
    ),
    headroom=0.25,
)
HRRN_SHARE = replace(
    SPF_SHARE,
    base=Policy(
        "hrrn-share",
        queue_order=QueueOrder.RESPONSE_RATIO,
        queue_weights=queue_weights(num_known_tokens=1.0),
        watermark=0.01,
        source="ours: highest response ratio next with the budget of spf-share",
        note="Short first, but nobody waits for ever: a tail as short as first come, first served has it.",
    ),
)
NEWEST_SHARE = replace(
    SPF_SHARE,
    base=Policy(
        "newest-share",
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(arrival_s=-1.0),
        watermark=0.01,
        source="ours: last come, first served with the budget of spf-share",
        note="Under overload and limits on first tokens: whoever waited too long is lost, so the newest go first.",
    ),
)

TABLE = (SPF_SHARE, SPF_AGING_SHARE, SPF_HEADROOM_SHARE, HRRN_SHARE, FCFS_SHARE, NEWEST_SHARE)
"""On 96 training engines and traffics (experiments/transfer) spf-share has 0.75 of the mean latency of the best policy
that engines ship, at 1.30 times its p99; hrrn-share 0.84 at 0.97 times."""
