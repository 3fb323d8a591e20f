"""Near-optimal plans for workloads too large to prove: annealing over policies and priority lists.

A candidate is a setting of the scheduling algorithm (how it admits, mixes, batches prefills and picks victims) and
a priority for every request; the compiled engine decodes it into a schedule, so whatever is found is the engine's own
figure. Moves swap, shift or reverse stretches of the list and turn one knob; simulated annealing (Kirkpatrick
et al., 1983) decides. What is found holds for clairvoyant scheduling: the list may use the future.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult, simulate
from infermax_gym.engine.policy import (
    AdmissionCheck,
    LengthEstimate,
    PhaseOrder,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    queue_weights,
    victim_weights,
)
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

ObjectiveName = Literal["makespan", "latency"]
Variant = Literal["preemptive", "no-preemption", "reserve"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Progress = Callable[[float, int], None]
"""Called with the best objective so far in seconds and the number of schedules tried."""

_POLICY = Policy(
    "planned",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(priority=1.0),
    victim=Victim.KEY,
    victim_weights=victim_weights(priority=1.0),
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
)

_KNOBS: dict[str, tuple[Any, ...]] = {
    "phase_order": (PhaseOrder.DECODE_FIRST, PhaseOrder.PREFILL_FIRST, PhaseOrder.ONE_LIST),
    "hybrid": (True, False),
    "run_order": (RunOrder.ARRIVAL, RunOrder.ADMISSION, RunOrder.PROCESSED_DESC, RunOrder.QUEUE_KEY),
    "reserve": (Reserve.KNOWN, Reserve.CHUNK, Reserve.TOTAL_ESTIMATE),
    "admission_check": (AdmissionCheck.NONE, AdmissionCheck.FUTURE_PEAK),
    "victim": (Victim.KEY, Victim.LIST_TAIL),
    "min_decodes_between_prefills": (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    "headroom_tokens": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    "peak_margin": (0.0, 0.02, 0.05, 0.1),
    "admit_when_empty_only": (False, True),
}


@dataclass(frozen=True, eq=False)
class PlanSearchResult:
    """The best plan found.

    Attributes:
        objective_s: makespan or mean latency of its schedule, replayed by the engine.
        policy: the policy that decodes it.
        priority: (n,) int64, the priority list, smaller first.
        run: its replay.
        num_evaluations: schedules tried.
    """

    objective_s: float
    policy: Policy
    priority: NDArray[np.int64]
    run: SimulationResult
    num_evaluations: int


@dataclass(frozen=True, eq=False)
class _Candidate:
    policy: Policy
    order: NDArray[np.int64]  # requests, first to last


def search_plan(
    workload: Workload,
    config: EngineConfig,
    objective: ObjectiveName,
    *,
    variant: Variant = "preemptive",
    time_limit_s: float = 20.0,
    max_evaluations: int | None = None,
    stop_at_s: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
    seed: int = 0,
    progress: Progress | None = None,
) -> PlanSearchResult | None:
    """Search a schedule of a small or middling workload (up to some hundred requests).

    Args:
        workload: the requests; their own priorities play no part.
        config: the replica.
        objective: what is minimised.
        variant: "no-preemption" admits only schedules that never preempt, "reserve" only those that reserve
            I + O - 1 tokens on admission.
        time_limit_s: stop after so much time ...
        max_evaluations: ... or after so many schedules, which alone makes the search reproducible.
        stop_at_s: stop as soon as a plan is this good.
        stop: asked between schedules; True ends the search.
        seed: of the search, through its "policy" stream.
        progress: called on every improvement. KeyboardInterrupt ends the search with what it has.

    Returns:
        The best plan, or None if no schedule was found that the variant and the requests' TTFT limits
        (`ttft_slo_s`, hard here) allow.
    """
    search = _Search(workload, config, objective, variant)
    rng = stream(seed, "policy")
    began = time.monotonic()
    late = began + time_limit_s if max_evaluations is None else math.inf
    try:
        current, value = search.best_start(lambda: stop() or time.monotonic() > late)
        heat = 0.02
        while search.count < (max_evaluations or math.inf) and search.best_value > stop_at_s and not stop():
            spent = (time.monotonic() - began) / time_limit_s
            if max_evaluations is not None:
                spent = search.count / max_evaluations
            elif spent >= 1.0:
                break
            candidate = _move(current, rng)
            found = search.value(candidate)
            limit = value * (1.0 + heat * max(1.0 - spent, 0.0) ** 2 * -math.log(1.0 - rng.random()))
            if found <= limit:
                current, value = candidate, found
                if search.improve(candidate, found) and progress:
                    progress(found, search.count)
    except KeyboardInterrupt:
        pass
    return search.result()


class _Search:
    """Evaluates candidates and remembers the best."""

    def __init__(self, workload: Workload, config: EngineConfig, objective: ObjectiveName, variant: Variant) -> None:
        self.workload = workload
        self.config = config
        self.objective = objective
        self.variant = variant
        self.predicted = workload.num_output_tokens.astype(np.float64)
        self.has_limits = bool(np.isfinite(workload.ttft_slo_s).any())
        self.count = 0
        self.best: _Candidate | None = None
        self.best_value = math.inf

    def run(self, candidate: _Candidate) -> SimulationResult:
        priority = np.empty(len(self.workload), np.int64)
        priority[candidate.order] = np.arange(len(self.workload))
        policy = candidate.policy
        if self.variant == "reserve":
            policy = replace(policy, reserve=Reserve.TOTAL_ESTIMATE)
        return simulate(replace(self.workload, priority=priority), self.config, policy, predicted=self.predicted)

    def value(self, candidate: _Candidate) -> float:
        self.count += 1
        run = self.run(candidate)
        if self.variant != "preemptive" and run.num_preemptions > 0:
            return math.inf
        if self.has_limits and (run.ttft_s > self.workload.ttft_slo_s)[run.finished].any():
            return math.inf
        if self.objective == "makespan":
            return run.makespan_s
        return float(run.latency_s[run.finished].mean()) if run.finished.any() else 0.0

    def improve(self, candidate: _Candidate, value: float) -> bool:
        if value >= self.best_value:
            return False
        self.best, self.best_value = candidate, value
        return True

    def best_start(self, stop: Callable[[], bool]) -> tuple[_Candidate, float]:
        """The best of simple lists under simple policies, one at least; the last of them if none is allowed."""
        prompt, output = self.workload.num_prompt_tokens, self.workload.num_output_tokens
        keys = (np.arange(prompt.size), prompt, output, -output, prompt + output, -(prompt + output))
        policies = [
            replace(_POLICY, **knobs)
            for knobs in (
                {},
                {"hybrid": False},
                {"admission_check": AdmissionCheck.FUTURE_PEAK},
                {"admission_check": AdmissionCheck.FUTURE_PEAK, "hybrid": False},
                {"phase_order": PhaseOrder.PREFILL_FIRST, "hybrid": False},
                {"reserve": Reserve.TOTAL_ESTIMATE},
                {"min_decodes_between_prefills": 8},
                {"admission_check": AdmissionCheck.FUTURE_PEAK, "min_decodes_between_prefills": 8},
            )
        ]
        for key in keys:
            for policy in policies:
                candidate = _Candidate(policy, np.argsort(key, kind="stable"))
                self.improve(candidate, self.value(candidate))
                if stop():
                    return (self.best, self.best_value) if self.best else (candidate, math.inf)
        return (self.best, self.best_value) if self.best else (candidate, math.inf)

    def result(self) -> PlanSearchResult | None:
        if self.best is None:
            return None
        best = self.best
        priority = np.empty(len(self.workload), np.int64)
        priority[best.order] = np.arange(len(self.workload))
        run = self.run(best)
        value = run.makespan_s if self.objective == "makespan" else float(np.nanmean(run.latency_s))
        policy = replace(best.policy, reserve=Reserve.TOTAL_ESTIMATE) if self.variant == "reserve" else best.policy
        return PlanSearchResult(value, policy, priority, run, self.count)


def _move(candidate: _Candidate, rng: np.random.Generator) -> _Candidate:
    """A neighbour: one knob turned, or the list changed in one place."""
    n = candidate.order.size
    if n < 2 or rng.random() < 0.15:
        name = list(_KNOBS)[int(rng.integers(len(_KNOBS)))]
        values = _KNOBS[name]
        return replace(candidate, policy=replace(candidate.policy, **{name: values[int(rng.integers(len(values)))]}))
    order = candidate.order.copy()
    reach = max(2, round(n ** rng.random()))
    i = int(rng.integers(n))
    j = int(np.clip(i + rng.integers(-reach, reach + 1), 0, n - 1))
    low, high = min(i, j), max(i, j)
    kind = rng.random()
    if kind < 0.4:
        order[low], order[high] = order[high], order[low]
    elif kind < 0.8:
        order[low : high + 1] = np.roll(order[low : high + 1], 1 if kind < 0.6 else -1)
    else:
        order[low : high + 1] = order[low : high + 1][::-1]
    return replace(candidate, order=order)
