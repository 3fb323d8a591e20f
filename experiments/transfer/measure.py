"""What each expert reaches in each scenario, and what a selector would see there: the data a selector learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.transfer.experts import DEFAULTS, EXPERTS
from experiments.transfer.scenarios import Scenario
from infermax_gym.agents.outlook import FEATURES, Outlook
from infermax_gym.agents.selector import Selector
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.table.shares import Shares
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class Figures:
    """Of one run.

    Attributes:
        mean_s: mean latency.
        p99_s: its 99th percentile.
    """

    mean_s: float
    p99_s: float


def figures(result: SimulationResult) -> Figures:
    """Mean and tail of a run's finished requests."""
    latency_s = result.latency_s[result.finished]
    return Figures(float(latency_s.mean()), float(np.quantile(latency_s, 0.99)))


def best_default(workload: Workload, engine: EngineConfig) -> Figures:
    """The figures of the default with the lowest mean latency, chosen in hindsight."""
    return min((figures(simulate(workload, engine, POLICIES[name])) for name in DEFAULTS), key=lambda one: one.mean_s)


@dataclass(frozen=True, eq=False)
class Measured:
    """One scenario.

    Attributes:
        scenario: which.
        mean: (experts,) ln of mean latency over the best default's.
        p99: (experts,) ln of p99 over that default's.
        seen: (k, features) what is seen while some of the experts serve.
    """

    scenario: Scenario
    mean: NDArray[np.float64]
    p99: NDArray[np.float64]
    seen: NDArray[np.float64]


def measure(scenario: Scenario, watched: Sequence[int], most_seen: int = 24) -> Measured:
    """Run every expert; look at what a selector sees while those in `watched` serve."""
    workload, engine = scenario.workload(), scenario.config
    rival = best_default(workload, engine)
    context = float(workload.num_prompt_tokens.mean() + 0.5 * workload.num_output_tokens.mean())
    runs = [figures(simulate(workload, engine, expert.resolve(engine, context))) for expert in EXPERTS]
    return Measured(
        scenario,
        np.log([run.mean_s / rival.mean_s for run in runs]),
        np.log([run.p99_s / rival.p99_s for run in runs]),
        np.concatenate([_seen(EXPERTS[k], workload, engine)[::1] for k in watched])
        if most_seen == 0
        else np.concatenate([_thinned(_seen(EXPERTS[k], workload, engine), most_seen) for k in watched]),
    )


def watched_run(selector: Selector, workload: Workload, engine: EngineConfig) -> NDArray[np.float64]:
    """(k, features) what a selector sees along a run."""
    seen: list[NDArray[np.float64]] = []
    watch: Callable[[Outlook, int], None] = lambda outlook, expert: seen.append(outlook.features)  # noqa: E731
    selector.play(workload, engine, watch=watch)
    return np.array(seen)


def _seen(expert: Shares, workload: Workload, engine: EngineConfig) -> NDArray[np.float64]:
    return watched_run(Selector((expert,), np.zeros((1, len(FEATURES))), np.zeros((1, 2))), workload, engine)


def _thinned(seen: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    return seen[np.unique(np.linspace(0, len(seen) - 1, min(most, len(seen))).astype(np.int64))]
