"""What `InferMaxRouter-v0` draws its episodes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from infermax_gym.cost import CostModel
from infermax_gym.engine import Information, Policy
from infermax_gym.envs import settings as read
from infermax_gym.envs.rewards import LATENCY, Reward
from infermax_gym.envs.settings import Range, SettingError, wrong
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class RouterEnvConfig:
    """Ranges that episodes are drawn from.

    A range (low, high) is drawn uniformly, positive ones of a factor of 4 or more on a log scale; low = high or a
    plain number pins it. A string, a workload or a cost model stands for one of its kind.

    Attributes:
        workloads: names of presets, paths of traces, or workloads; each episode takes one and a trace slice of it.
        start: first request of the trace slice; None: drawn. Presets have none.
        num_requests: range of the number of requests of an episode.
        num_replicas: engines behind the router.
        rate_per_replica: range of the mean arrival rate, requests per second and replica.
        concurrency: range of the number of clients who send the requests, each its next one when its last has ended;
            None: requests arrive when they arrive.
        think_s: seconds from an end to the next request of a client, or turn of a conversation; None: 0, and between
            turns as recorded.
        ramp_up_s: seconds over which the clients begin.
        sessions: turns of a conversation are sent when the answer before is there and a pause is over.
        num_kv_tokens: range of a replica's KV capacity in tokens.
        costs: cost models, or names of presets.
        alike: whether an episode draws capacity and cost model once for all replicas, or for each of them anew.
        policy: scheduler of every replica, or its name in the table of policies.
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
        ttft_slo_s: TTFT limit of requests that have none of their own; None for none.
        tpot_slo_s: likewise for the time per output token.
        time_limit_s: the episode is cut short at the first arrival from then on.
        max_decisions: likewise after so many decisions; None for no limit.
        max_decisions_per_request: likewise after so many per request; None for no limit.

    Raises:
        ValueError: a setting is out of range; one line.
    """

    workloads: tuple[str | Workload, ...] = ("azure-conv",)
    start: int | None = None
    num_requests: Range = (400, 400)
    num_replicas: int = 4
    rate_per_replica: Range = (3.0, 4.5)
    concurrency: Range | None = None
    think_s: float | None = None
    ramp_up_s: float = 0.0
    sessions: bool = False
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
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    time_limit_s: float = math.inf
    max_decisions: int | None = None
    max_decisions_per_request: float | None = None

    def __post_init__(self) -> None:
        read.normalise(self, READERS)
        _check(self)

    def changed(self, **settings: Any) -> RouterEnvConfig:
        """This configuration with some settings changed.

        Raises:
            SettingError: a setting is unknown or out of range.
        """
        return replace(self, **read.named(settings, SETTINGS))


SETTINGS = tuple(item.name for item in fields(RouterEnvConfig))
"""Names of the settings."""

READERS: dict[str, read.Reader] = {
    "workloads": read.WORKLOADS,
    "start": read.size(0, optional=True),
    "num_requests": read.span(2, whole=True),
    "num_replicas": read.size(1),
    "rate_per_replica": read.span(0, above=True),
    "concurrency": read.CLIENTS,
    "think_s": read.DURATION,
    "ramp_up_s": read.NOT_NEGATIVE,
    "sessions": read.flag,
    "num_kv_tokens": read.span(1, whole=True),
    "costs": read.COST_MODELS,
    "alike": read.flag,
    "policy": read.policy,
    "block_size": read.size(1),
    "max_num_batched_tokens": read.size(1),
    "max_num_seqs": read.size(1),
    "prefix_caching": read.flag,
    "staleness_s": read.NOT_NEGATIVE,
    "counts_routed": read.flag,
    "information": read.choice("none", "noisy", "oracle"),
    "prediction_sigma": read.NOT_NEGATIVE,
    "reward": read.reward,
    "ttft_slo_s": read.LIMIT,
    "tpot_slo_s": read.LIMIT,
    "time_limit_s": read.POSITIVE,
    "max_decisions": read.size(1, optional=True),
    "max_decisions_per_request": read.LIMIT,
}
"""What each setting may be."""

EPISODE_SETTINGS = (
    "workloads",
    "start",
    "num_requests",
    "rate_per_replica",
    "concurrency",
    "think_s",
    "ramp_up_s",
    "sessions",
    "num_kv_tokens",
    "costs",
    "ttft_slo_s",
    "tpot_slo_s",
    "time_limit_s",
)
"""Settings that say what an episode is, which `reset(options=...)` may change for one."""


def _check(config: RouterEnvConfig) -> None:
    low, _ = config.num_kv_tokens
    if low < config.block_size:
        raise wrong("num_kv_tokens", f"at least a block of {config.block_size} tokens", low)
    read.check_traffic(config)
    needed = config.policy.information in (Information.PREDICTED, Information.ORACLE)
    if needed and config.information == "none":
        raise SettingError(
            f"environment: policy {config.policy.name!r} needs predictions: set information to 'noisy' or 'oracle'"
        )
