"""What an environment draws its episodes from, and how the agent sees and is paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

from infermax_gym.cost import CostModel
from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights
from infermax_gym.envs import settings as read
from infermax_gym.envs.rewards import LATENCY, Reward
from infermax_gym.envs.scheduling.layout import MOST_SLOTS, ActionLayout
from infermax_gym.envs.settings import Range, wrong
from infermax_gym.workload import Workload

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

    A range (low, high) is drawn uniformly, positive ones of a factor of 4 or more on a log scale; low = high or a
    plain number pins it. A string, a workload or a cost model stands for one of its kind.

    Attributes:
        workloads: names of presets, paths of traces, or workloads; each episode takes one and a trace slice of it.
        start: first request of the trace slice; None: drawn. Presets have none.
        num_requests: range of the number of requests that arrive over time.
        backlog: range of requests that have arrived already when the episode begins.
        time_scale: range of the factor on arrival times; below 1 raises the load.
        concurrency: range of the number of clients who send the requests, each its next one when its last has ended;
            None: requests arrive when they arrive.
        think_s: seconds from an end to the next request of a client, or turn of a conversation; None: 0, and between
            turns as recorded.
        ramp_up_s: seconds over which the clients begin.
        sessions: turns of a conversation are sent when the answer before is there and a pause is over.
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
        preempt: when PREEMPT is legal: "any" time, or only when it is "forced", while RUN at full budget is not legal.
        information: what observations say of output lengths: "none", "noisy" (O exp(sigma Z - sigma^2 / 2) with
            sigma `prediction_sigma`) or "oracle".
        prediction_sigma: see `information`.
        reward: a `Reward`, or the name of one.
        ttft_slo_s: TTFT limit of requests that have none of their own; None for none.
        tpot_slo_s: likewise for the time per output token.
        time_limit_s: the episode is cut short when the simulated clock passes it.
        max_decisions: likewise after so many decisions; None for no limit.
        max_decisions_per_request: likewise after so many per request (with `decide="iteration"` one more for each
            output token); None for no limit.
        base: knobs of the engine under the agent: order and keys of the queue, order of the running list,
            reservation, preemption mode, victim key of the running slots. Its admission tests, gates and own victims
            play no part: those decisions are the agent's.

    Raises:
        ValueError: a setting is out of range; one line.
    """

    workloads: tuple[str | Workload, ...] = ("azure-conv",)
    start: int | None = None
    num_requests: Range = (400, 400)
    backlog: Range = (0, 0)
    time_scale: Range = (1.0, 1.0)
    concurrency: Range | None = None
    think_s: float | None = None
    ramp_up_s: float = 0.0
    sessions: bool = False
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
    preempt: Literal["any", "forced"] = "any"
    information: Literal["none", "noisy", "oracle"] = "none"
    prediction_sigma: float = 0.6
    reward: Reward | str = LATENCY
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    time_limit_s: float = math.inf
    max_decisions: int | None = None
    max_decisions_per_request: float | None = None
    base: Policy = field(default=BASE)

    def __post_init__(self) -> None:
        read.normalise(self, READERS)
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

    def changed(self, **settings: Any) -> EnvConfig:
        """This configuration with some settings changed.

        Raises:
            SettingError: a setting is unknown or out of range.
        """
        return replace(self, **read.named(settings, SETTINGS))


SETTINGS = tuple(item.name for item in fields(EnvConfig))
"""Names of the settings."""


def _shares(name: str, value: Any) -> tuple[float, ...]:
    shares = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    sound = bool(shares) and all(map(read.is_number, shares))
    if not sound or any(a >= b for a, b in pairwise(shares)) or shares[0] < 0.0 or shares[-1] != 1.0:
        raise wrong(name, "shares of the token budget that ascend to 1", value)
    return tuple(float(share) for share in shares)


def _base(name: str, value: Any) -> Policy:
    base = read.policy(name, value)
    if base.queue_order not in (QueueOrder.FIFO, QueueOrder.LINEAR):
        raise wrong(name, "a policy with a FIFO or LINEAR queue order (slots show fixed keys)", base.name)
    return base


READERS: dict[str, read.Reader] = {
    "workloads": read.WORKLOADS,
    "start": read.size(0, optional=True),
    "num_requests": read.span(1, whole=True),
    "backlog": read.span(0, whole=True),
    "time_scale": read.span(0, above=True),
    "concurrency": read.CLIENTS,
    "think_s": read.DURATION,
    "ramp_up_s": read.NOT_NEGATIVE,
    "sessions": read.flag,
    "num_kv_tokens": read.span(1, whole=True),
    "costs": read.COST_MODELS,
    "block_size": read.size(1),
    "max_num_batched_tokens": read.size(1),
    "max_num_seqs": read.size(1),
    "num_waiting_slots": read.size(1, MOST_SLOTS),
    "num_running_slots": read.size(1, MOST_SLOTS),
    "level_shares": _shares,
    "decide": read.choice("change", "event", "iteration"),
    "admit_within_budget": read.flag,
    "preempt": read.choice("any", "forced"),
    "information": read.choice("none", "noisy", "oracle"),
    "prediction_sigma": read.NOT_NEGATIVE,
    "reward": read.reward,
    "ttft_slo_s": read.LIMIT,
    "tpot_slo_s": read.LIMIT,
    "time_limit_s": read.POSITIVE,
    "max_decisions": read.size(1, optional=True),
    "max_decisions_per_request": read.LIMIT,
    "base": _base,
}
"""What each setting may be."""

EPISODE_SETTINGS = (
    "workloads",
    "start",
    "num_requests",
    "backlog",
    "time_scale",
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


def _check(config: EnvConfig) -> None:
    low, _ = config.num_kv_tokens
    if low < config.block_size:
        raise wrong("num_kv_tokens", f"at least a block of {config.block_size} tokens", low)
    read.check_traffic(config)
    if config.concurrency is not None and config.backlog != (0, 0):
        raise wrong("backlog", "0 with concurrency, whose clients wait for their answers", config.backlog)
