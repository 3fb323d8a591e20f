"""What an environment draws its episodes from, and how the agent sees and is paid."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from infermax_gym.cost import COSTS, CostModel
from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights
from infermax_gym.envs.layout import ActionLayout
from infermax_gym.envs.rewards import LATENCY, REWARDS, Reward
from infermax_gym.envs.slots import MOST_SLOTS
from infermax_gym.workload import Workload

Range = tuple[float, float]

BASE = Policy(
    "environment",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    victim=Victim.KEY,
    victim_weights=victim_weights(num_processed_tokens=-1.0),
)
"""Default knobs under the agent: waiting slots show the shortest known tokens first, running slots the fewest
processed tokens, admission reserves the known tokens, prefills are served in order of arrival."""


@dataclass(frozen=True)
class EnvConfig:
    """Ranges that episodes are drawn from, and the agent's interface.

    A range (low, high) is drawn uniformly, positive ones of a factor of 4 or more on a log scale; low = high pins it.

    Attributes:
        workloads: names of presets, paths of traces, or workloads; each episode takes one and a trace slice of it.
        num_requests: requests of an episode that arrive over time.
        backlog: range of requests that have arrived already when the episode begins.
        time_scale: range of the factor on arrival times; below 1 raises the load.
        num_kv_tokens: range of the KV capacity in tokens.
        costs: cost models, or names of presets; each episode takes one.
        block_size: tokens per KV block.
        max_num_batched_tokens: token budget of an iteration.
        max_num_seqs: most running requests.
        num_waiting_slots: waiting requests the agent sees.
        num_running_slots: running requests the agent sees.
        level_shares: chunk budgets of RUN as shares of the token budget, ascending; the last must be 1.
        decide: when the agent is asked: "iteration" before every iteration, "event" only when there is something to
            decide, "change" likewise, but of admissions that a RUN has held back not before a request has arrived,
            finished or ended its prefill.
        admit_within_budget: ADMIT is legal only while running requests leave tokens of the next iteration's budget to a
            waiting request, as in the engines in use; else waiting requests may queue up inside, holding memory.
        information: what observations say of output lengths: "none", "noisy" (O exp(sigma Z - sigma^2 / 2) with
            sigma `prediction_sigma`) or "oracle".
        prediction_sigma: see `information`.
        reward: a `Reward`, or the name of one.
        slo_ttft_s: TTFT objective of requests that have none of their own; None for none.
        slo_tpot_s: likewise for the time per output token.
        time_limit_s: truncate when the simulated clock passes it.
        max_decisions: truncate after so many decisions; None for no limit.
        base: knobs of the engine under the agent: order and keys of the queue, order of the running list,
            reservation, preemption mode, victim key of the running slots. Its admission tests, gates and own victims
            play no part: those decisions are the agent's.

    Raises:
        ValueError: a setting is out of range; one line.
    """

    workloads: tuple[str | Workload, ...] = ("azure-conv",)
    num_requests: int = 400
    backlog: Range = (0, 0)
    time_scale: Range = (1.0, 1.0)
    num_kv_tokens: Range = (20_000, 20_000)
    costs: tuple[str | CostModel, ...] = ("llama2-7b-a100",)
    block_size: int = 16
    max_num_batched_tokens: int = 512
    max_num_seqs: int = 256
    num_waiting_slots: int = 16
    num_running_slots: int = 16
    level_shares: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    decide: Literal["change", "event", "iteration"] = "event"
    admit_within_budget: bool = False
    information: Literal["none", "noisy", "oracle"] = "none"
    prediction_sigma: float = 0.6
    reward: Reward | str = LATENCY
    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    time_limit_s: float = math.inf
    max_decisions: int | None = None
    base: Policy = field(default=BASE)

    def __post_init__(self) -> None:
        if isinstance(self.reward, str):
            if self.reward not in REWARDS:
                raise ValueError(f"unknown reward {self.reward!r}; known: {', '.join(REWARDS)}")
            object.__setattr__(self, "reward", REWARDS[self.reward])
        _check(self)

    @property
    def layout(self) -> ActionLayout:
        """The layout of the actions."""
        return ActionLayout(len(self.level_shares), self.num_waiting_slots, self.num_running_slots)

    @property
    def levels(self) -> tuple[int, ...]:
        """Chunk budgets of RUN in tokens."""
        budget = self.base.max_num_batched_tokens or self.max_num_batched_tokens
        return tuple(round(share * budget) for share in self.level_shares)

    def cost_model(self, cost: str | CostModel) -> CostModel:
        """The cost model of an entry of `costs`.

        Raises:
            ValueError: no cost model is called that.
        """
        if isinstance(cost, str) and cost not in COSTS:
            raise ValueError(f"environment: unknown cost model {cost!r}; known: {', '.join(COSTS)}")
        return COSTS[cost] if isinstance(cost, str) else cost

    def changed(self, **settings: Any) -> EnvConfig:
        """This configuration with some settings changed."""
        return replace(self, **settings)


def _check(config: EnvConfig) -> None:
    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(f"environment: {what}")

    require(len(config.workloads) > 0 and len(config.costs) > 0, "needs at least one workload and one cost model")
    for cost in config.costs:
        config.cost_model(cost)
    require(config.num_requests >= 1, f"num_requests must be at least 1, got {config.num_requests}")
    for name in ("num_waiting_slots", "num_running_slots"):
        slots = getattr(config, name)
        require(1 <= slots <= MOST_SLOTS, f"{name} must be in 1..{MOST_SLOTS}, got {slots}")
    for name, least in (("backlog", 0), ("time_scale", 0.0), ("num_kv_tokens", config.block_size)):
        low, high = getattr(config, name)
        require(least <= low <= high < math.inf, f"{name} must be a range {least} <= low <= high, got {(low, high)}")
    require(config.time_scale[0] > 0.0, "time_scale must be positive")
    shares = config.level_shares
    ascending = all(a < b for a, b in pairwise(shares))
    require(bool(shares) and ascending and shares[0] >= 0.0 and shares[-1] == 1.0, "level_shares must ascend to 1")
    moments = ("change", "event", "iteration")
    require(config.decide in moments, f"decide must be 'change', 'event' or 'iteration', got {config.decide!r}")
    infos = ("none", "noisy", "oracle")
    require(config.information in infos, f"information must be one of {', '.join(infos)}, got {config.information!r}")
    require(config.prediction_sigma >= 0.0, "prediction_sigma must not be negative")
    require(config.time_limit_s > 0.0, "time_limit_s must be positive")
    require(config.max_decisions is None or config.max_decisions >= 1, "max_decisions must be at least 1")
    moving = config.base.queue_order not in (QueueOrder.FIFO, QueueOrder.LINEAR)
    require(not moving, "base must have a FIFO or LINEAR queue order: slots show fixed keys")
    require(config.block_size >= 1 and config.max_num_batched_tokens >= 1 and config.max_num_seqs >= 1, "sizes >= 1")
