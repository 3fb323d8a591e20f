"""What each expert reaches in each scenario, and what a selector would see there: the data a selector learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.transfer.experts import DEFAULTS, MEASURED
from experiments.transfer.scenarios import Scenario
from infermax_gym.agents.objectives import goodput_per_s
from infermax_gym.agents.outlook import FEATURES, Outlook
from infermax_gym.agents.selector import Selector
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.table.shares import Shares, decode_seconds, prefill_seconds
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class Figures:
    """Of one run.

    Attributes:
        mean_s: mean latency.
        p99_s: its 99th percentile.
        goodput: requests within their limits per second; of half a request where there is none.
    """

    mean_s: float
    p99_s: float
    goodput: float


def figures(result: SimulationResult) -> Figures:
    """Mean and tail of a run's finished requests."""
    latency_s = result.latency_s[result.finished]
    return Figures(float(latency_s.mean()), float(np.quantile(latency_s, 0.99)), goodput_per_s(result))


def limited(workload: Workload, engine: EngineConfig) -> Workload:
    """The requests with limits that suit the engine: 5 times the TTFT and twice the TPOT of a mean request alone."""
    prompt, output = float(workload.num_prompt_tokens.mean()), float(workload.num_output_tokens.mean())
    ttft_s = 5.0 * float(prefill_seconds(engine.cost, np.array([prompt]))[0])
    tpot_s = 2.0 * float(decode_seconds(engine.cost, np.array([1.0]), prompt + 0.5 * output)[0])
    count = len(workload)
    return replace(workload, ttft_slo_s=np.full(count, ttft_s), tpot_slo_s=np.full(count, tpot_s))


@dataclass(frozen=True)
class Rivals:
    """The best that engines ship, each figure chosen in hindsight.

    Attributes:
        mean: of the default with the lowest mean latency.
        goodput: of the one with the most goodput.
    """

    mean: Figures
    goodput: Figures


def best_defaults(workload: Workload, engine: EngineConfig, names: Sequence[str] = DEFAULTS) -> Rivals:
    """The best of some policies of the table on these requests."""
    runs = [figures(simulate(workload, engine, POLICIES[name])) for name in names]
    return Rivals(min(runs, key=lambda one: one.mean_s), max(runs, key=lambda one: one.goodput))


@dataclass(frozen=True, eq=False)
class Measured:
    """One scenario.

    Attributes:
        scenario: which.
        mean: (experts,) ln of mean latency over the best default's.
        p99: (experts,) ln of p99 over that default's.
        goodput: (experts,) ln of the best default's goodput over an expert's.
        seen: (k, features) what is seen while some of the experts serve.
    """

    scenario: Scenario
    mean: NDArray[np.float64]
    p99: NDArray[np.float64]
    goodput: NDArray[np.float64]
    seen: NDArray[np.float64]

    def of(self, experts: Sequence[Shares]) -> Measured:
        """The same of some of the experts, in their order."""
        which = [MEASURED.index(one) for one in experts]
        return replace(self, mean=self.mean[which], p99=self.p99[which], goodput=self.goodput[which])


def measure(scenario: Scenario, watched: Sequence[int], most_seen: int = 24) -> Measured:
    """Run every expert; look at what a selector sees while those in `watched` serve."""
    engine = scenario.config
    workload = limited(scenario.workload(), engine)
    rivals = best_defaults(workload, engine)
    context = float(workload.num_prompt_tokens.mean() + 0.5 * workload.num_output_tokens.mean())
    runs = [figures(simulate(workload, engine, expert.resolve(engine, context))) for expert in MEASURED]
    seen = [_thinned(_seen(MEASURED[k], workload, engine), most_seen) for k in watched]
    return Measured(
        scenario,
        np.log([run.mean_s / rivals.mean.mean_s for run in runs]),
        np.log([run.p99_s / rivals.mean.p99_s for run in runs]),
        np.log([rivals.goodput.goodput / run.goodput for run in runs]),
        np.concatenate(seen),
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
