"""What `InferMaxRouter-v0` draws its episodes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from infermax_gym.cost import COSTS, CostModel
from infermax_gym.engine import Information, Policy
from infermax_gym.envs.config import Range
from infermax_gym.envs.rewards import LATENCY, REWARDS, Reward
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class RouterEnvConfig:
    """Ranges that episodes are drawn from.

    A range (low, high) is drawn uniformly, positive ones of a factor of 4 or more on a log scale; low = high pins it.

    Attributes:
        workloads: names of presets, paths of traces, or workloads; each episode takes one and a trace slice of it.
        num_requests: requests of an episode.
        num_replicas: engines behind the router.
        rate_per_replica: range of the mean arrival rate, requests per second and replica.
        num_kv_tokens: range of a replica's KV capacity in tokens.
        costs: cost models, or names of presets.
        alike: whether an episode draws capacity and cost model once for all replicas, or for each of them anew.
        policy: scheduler of every replica.
        block_size: tokens per KV block.
        max_num_batched_tokens: token budget of an iteration.
        max_num_seqs: most running requests of a replica.
        prefix_caching: whether replicas keep prefix caches.
        staleness_s: seconds between two snapshots of the load signals; 0 looks at each arrival.
        counts_routed: whether a snapshot is kept up with what was routed since.
        information: what observations, and the replicas' policy, are told of output lengths: "none", "noisy"
            (O exp(sigma Z - sigma^2 / 2) with sigma `prediction_sigma`) or "oracle".
        prediction_sigma: see `information`.
        reward: a `Reward`, or the name of one.
        slo_ttft_s: TTFT objective of requests that have none of their own; None for none.
        slo_tpot_s: likewise for the time per output token.
        time_limit_s: truncate at the first arrival from then on.

    Raises:
        ValueError: a setting is out of range; one line.
    """

    workloads: tuple[str | Workload, ...] = ("azure-conv",)
    num_requests: int = 400
    num_replicas: int = 4
    rate_per_replica: Range = (3.0, 4.5)
    num_kv_tokens: Range = (30_000, 30_000)
    costs: tuple[str | CostModel, ...] = ("llama2-7b-a100",)
    alike: bool = True
    policy: Policy = field(default=Policy("fcfs"))
    block_size: int = 16
    max_num_batched_tokens: int = 512
    max_num_seqs: int = 256
    prefix_caching: bool = False
    staleness_s: float = 0.0
    counts_routed: bool = True
    information: Literal["none", "noisy", "oracle"] = "none"
    prediction_sigma: float = 0.6
    reward: Reward | str = LATENCY
    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    time_limit_s: float = math.inf

    def __post_init__(self) -> None:
        if isinstance(self.reward, str):
            if self.reward not in REWARDS:
                raise ValueError(f"unknown reward {self.reward!r}; known: {', '.join(REWARDS)}")
            object.__setattr__(self, "reward", REWARDS[self.reward])
        _check(self)

    def cost_model(self, cost: str | CostModel) -> CostModel:
        """The cost model of an entry of `costs`.

        Raises:
            ValueError: no cost model is called that.
        """
        if isinstance(cost, str) and cost not in COSTS:
            raise ValueError(f"environment: unknown cost model {cost!r}; known: {', '.join(COSTS)}")
        return COSTS[cost] if isinstance(cost, str) else cost

    def changed(self, **settings: Any) -> RouterEnvConfig:
        """This configuration with some settings changed."""
        return replace(self, **settings)


def _check(config: RouterEnvConfig) -> None:
    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(f"environment: {what}")

    require(len(config.workloads) > 0 and len(config.costs) > 0, "needs at least one workload and one cost model")
    for cost in config.costs:
        config.cost_model(cost)
    require(config.num_requests >= 2, f"num_requests must be at least 2, got {config.num_requests}")
    require(config.num_replicas >= 1, f"num_replicas must be at least 1, got {config.num_replicas}")
    for name, least in (("rate_per_replica", 0.0), ("num_kv_tokens", config.block_size)):
        low, high = getattr(config, name)
        require(least <= low <= high < math.inf, f"{name} must be a range {least} <= low <= high, got {(low, high)}")
    require(config.rate_per_replica[0] > 0.0, "rate_per_replica must be positive")
    infos = ("none", "noisy", "oracle")
    require(config.information in infos, f"information must be one of {', '.join(infos)}, got {config.information!r}")
    needed = config.policy.information in (Information.PREDICTED, Information.ORACLE)
    require(
        not needed or config.information != "none",
        f"policy {config.policy.name!r} needs predictions: set information to 'noisy' or 'oracle'",
    )
    require(config.prediction_sigma >= 0.0, "prediction_sigma must not be negative")
    require(0.0 <= config.staleness_s < math.inf, f"staleness_s must be a time >= 0, got {config.staleness_s}")
    require(config.time_limit_s > 0.0, "time_limit_s must be positive")
    require(config.block_size >= 1 and config.max_num_batched_tokens >= 1 and config.max_num_seqs >= 1, "sizes >= 1")
