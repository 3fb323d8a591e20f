"""Controllers: small networks that set the scheduling algorithm's knobs every few seconds, from what they see.

A specialist is one matrix: a weight for each knob and each feature (`CONTROLLER_KNOBS`, `CONTROLLER_FEATURES`). So it
scores every waiting request by a key whose weights depend on the engine's state: load, memory pressure, the traffic so
far. With weights on the constant alone it is a policy of the table. One that weighs only the engine features and the
knobs of `InferMaxKnobs-v0` plays that environment; the schedule is the same there. A controller is one specialist, or
several and a gating network: a small network that looks at the same features and says, at every setting, which
specialist is active.

Length estimates. A controller may keep account of the output lengths of finished requests, by group (requests of like
prompt length, and of one class where it knows classes), and estimate ln(output) as normal in each. What a request still
needs is then the mean of that distribution beyond what it has generated, combined with its predicted length where there
is one: a prediction that a request has outlived is not taken for "nearly done", as the raw remainder would be.

Shedding. With the knob `shed` above 0, requests that will miss their TTFT limit go behind all others, and their
prefills pause while a request that can still meet its limit can use the tokens; see
`infermax_gym.agents.controller_moves`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.controller_kernel import control
from infermax_gym.agents.controller_layout import (
    ACCOUNT,
    FEATURE_ONE,
    KNOB_PREEMPT,
    NUM_FEATURES,
    NUM_KNOBS,
    Observed,
    Specialists,
)
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.policy import QueueOrder, Victim
from infermax_gym.engine.recorder import result_of
from infermax_gym.engine.session import run_to
from infermax_gym.envs.knobs.layout import KNOB_NAMES
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Episode, begin_run
from infermax_gym.workload import Workload

BASE = Policy("controller", queue_order=QueueOrder.LINEAR, victim=Victim.KEY)
"""The policy whose knobs a controller sets."""

_NUM_BUCKETS = 24
_CONFIG = EnvConfig(base=BASE)


@dataclass(frozen=True, eq=False)
class GatingNetwork:
    """Says which specialist is active: argmax of outer . (tanh(inner . features), 1).

    Attributes:
        inner: (hidden, features) float64; the first feature is the constant 1.
        outer: (specialists, hidden + 1) float64.
    """

    inner: NDArray[np.float64]
    outer: NDArray[np.float64]

    def __post_init__(self) -> None:
        inner, outer = (np.ascontiguousarray(part, np.float64) for part in (self.inner, self.outer))
        fits = inner.ndim == outer.ndim == 2 and inner.shape[1] == NUM_FEATURES and outer.shape[1] == len(inner) + 1
        if not fits or not (np.isfinite(inner).all() and np.isfinite(outer).all()):
            raise ValueError(
                f"a gating network has finite (hidden, {NUM_FEATURES}) and (specialists, hidden + 1) weights"
            )
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "outer", outer)


_NO_GATING = GatingNetwork(np.zeros((0, NUM_FEATURES)), np.zeros((1, 1)))


@dataclass(frozen=True)
class Setting:
    """What a controller did at one setting.

    Attributes:
        specialist: which one was active.
        knobs: (knobs,) what was set.
        features: (features,) what was seen.
    """

    specialist: int
    knobs: NDArray[np.float64]
    features: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Controller:
    """A controller.

    Attributes:
        weights: (knobs, features) float64 of the only specialist, or (specialists, knobs, features).
        gating: says which specialist is active; needed where there are several.
        interval_s: simulated seconds between two settings (each ends with an iteration).
        estimates_lengths: whether it estimates output lengths; else the knobs and features that need it are inert.
        classes: whether it knows SLO classes.
        sigma: log-normal error of the predicted lengths that it gets; None: it gets none.
        prior: of ln(output): mean, standard deviation, and how many finished requests it is worth.
    """

    weights: NDArray[np.float64]
    interval_s: float = 2.0
    estimates_lengths: bool = True
    classes: bool = False
    sigma: float | None = None
    prior: tuple[float, float, float] = (5.5, 1.2, 4.0)
    gating: GatingNetwork | None = None

    def __post_init__(self) -> None:
        weights = np.ascontiguousarray(self.weights, np.float64)
        if weights.shape[-2:] != (NUM_KNOBS, NUM_FEATURES) or weights.ndim > 3 or not np.isfinite(weights).all():
            raise ValueError(f"a specialist has {NUM_KNOBS} x {NUM_FEATURES} finite weights, got {weights.shape}")
        count = len(weights) if weights.ndim == 3 else 1
        if count != (1 if self.gating is None else len(self.gating.outer)):
            raise ValueError(f"{count} specialists need a gating network for as many")
        if not 0.0 < self.interval_s < np.inf:
            raise ValueError(f"interval_s must be positive and finite, got {self.interval_s}")
        object.__setattr__(self, "weights", weights)

    @property
    def num_specialists(self) -> int:
        """How many specialists it has."""
        return len(self.weights) if self.weights.ndim == 3 else 1

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        return Information.NONE if self.sigma is None else Information.PREDICTED

    def play(
        self,
        workload: Workload,
        engine: EngineConfig,
        *,
        predicted: NDArray[np.float64] | None = None,
        record_schedule: bool = False,
        base: Policy = BASE,
    ) -> SimulationResult:
        """Serve a workload to its end.

        Args:
            workload: the requests.
            engine: the replica.
            predicted: (n,) predicted output tokens, for controllers with a `sigma`; others ignore them.
            record_schedule: keep every iteration.
            base: the policy whose knobs are set, such as `infermax_gym.vllm.as_served(BASE)`.

        Raises:
            ValueError: it needs predictions and got none.
        """
        if self.sigma is not None and predicted is None:
            raise ValueError("this controller needs predicted output lengths")
        result, _ = self._serve(workload, engine, predicted, record_schedule, 0, base)
        return result

    def settings(
        self,
        workload: Workload,
        engine: EngineConfig,
        *,
        predicted: NDArray[np.float64] | None = None,
        most: int = 10_000,
    ) -> list[Setting]:
        """What it sets one after another while it serves a workload, at most so many."""
        log = self._serve(workload, engine, predicted, False, most)[1]
        return [Setting(int(entry[0]), entry[1 : 1 + NUM_KNOBS], entry[1 + NUM_KNOBS :]) for entry in log]

    def _serve(
        self,
        workload: Workload,
        engine: EngineConfig,
        predicted: NDArray[np.float64] | None,
        record_schedule: bool,
        most_settings: int,
        base: Policy = BASE,
    ) -> tuple[SimulationResult, NDArray[np.float64]]:
        config = _CONFIG.changed(base=base, max_num_batched_tokens=engine.max_num_batched_tokens)
        run = begin_run(config, Episode(workload, engine, None), record_schedule=record_schedule)
        run.lane.record["level"] = len(config.level_shares) - 1
        account = self._account(engine)
        observed = self._observed(workload, predicted)
        log = np.zeros((most_settings, 1 + NUM_KNOBS + NUM_FEATURES))
        gating = self.gating or _NO_GATING
        specialists = Specialists(self.weights.reshape(-1, NUM_KNOBS, NUM_FEATURES), gating.inner, gating.outer)

        def step() -> int:
            return int(control(run.engine.record, run.lane.record, account, specialists, observed, log))

        run_to(run.engine, run.recorder, step=step)
        run.recorder.empty(run.engine)
        result = result_of(run.engine, workload, run.recorder, record_schedule)
        return result, log[: int(account["num_settings"][0])]

    def _account(self, engine: EngineConfig) -> Any:
        account = np.zeros(1, ACCOUNT)
        account["interval_s"] = self.interval_s
        account["max_num_seqs"] = engine.max_num_seqs
        account["estimates_lengths"] = self.estimates_lengths
        account["sigma"] = self.sigma or 0.0
        account["prior_log"], account["prior_spread"], account["prior_weight"] = self.prior
        account["group_weight"] = 4.0
        return account

    def _observed(self, workload: Workload, predicted: NDArray[np.float64] | None) -> Observed:
        count, groups = len(workload), self._groups(workload)
        return Observed(
            groups=groups,
            predicted=np.zeros(count) if predicted is None or self.sigma is None else predicted,
            counted=np.zeros(count, np.int8),
            shed=np.zeros(count, np.int8),
            totals=np.zeros((int(groups.max(initial=0)) + 1, 3)),
        )

    def _groups(self, workload: Workload) -> NDArray[np.int64]:
        """(n,) groups from 1: requests whose prompts share a power of two, and a class where it knows classes."""
        bucket = np.minimum(np.log2(workload.num_prompt_tokens).astype(np.int64), _NUM_BUCKETS - 1)
        if self.classes:
            bucket = bucket // 2 + _NUM_BUCKETS * workload.slo_class
        return np.ascontiguousarray(1 + bucket)


def weights_from_action(action: NDArray[np.float64]) -> NDArray[np.float64]:
    """(NUM_KNOBS, NUM_FEATURES) weights of a controller that always sets the knobs of an action.

    Args:
        action: of `InferMaxKnobs-v0`, in the order of `KNOB_NAMES`.
    """
    weights = np.zeros((NUM_KNOBS, NUM_FEATURES))
    weights[: len(KNOB_NAMES), FEATURE_ONE] = action
    weights[KNOB_PREEMPT, FEATURE_ONE] = -0.5
    return weights
