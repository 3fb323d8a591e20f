"""What everybody reaches on draws of scenarios, kept in a file of lines: a run that is cut off loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.transfer.experts import DEFAULTS, FORMS, PUBLISHED
from experiments.transfer.measure import Figures, figures, limited
from experiments.transfer.scenarios import Scenario
from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.evaluation import Ratio, paired_ratio
from infermax_gym.evaluation.contenders import run_contender
from infermax_gym.workload import Workload

ENGINES_SHIP = (*DEFAULTS, *(policy.name for policy in FORMS))
BEST_PUBLISHED = "best published"

_FORMS = {policy.name: policy for policy in FORMS}

_ENOUGH = 4

Play = Callable[[Workload, EngineConfig], SimulationResult]
Key = tuple[Scenario, int]


@dataclass(frozen=True)
class Runs:
    """Figures by draw of a scenario and by who served it, backed by a file.

    Attributes:
        path: gets a line for each figure; None: nothing is kept.
        found: the figures.
    """

    path: Path | None = None
    found: dict[Key, dict[str, Figures]] = field(default_factory=dict)

    def add(self, scenario: Scenario, number: int, name: str, reached: Figures) -> None:
        """Note one more."""
        self.found.setdefault((scenario, number), {})[name] = reached
        if self.path is not None:
            line = [scenario.engine, scenario.traffic, scenario.load, scenario.seed, number, name]
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([*line, reached.mean_s, reached.p99_s, reached.goodput]) + "\n")


def load_runs(path: Path | None) -> Runs:
    """What a file holds, if it is there; the last line of a figure counts."""
    runs = Runs(path)
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            engine, traffic, load, seed, number, name, *values = json.loads(line)
            scenario = Scenario(engine, traffic, load, seed)
            runs.found.setdefault((scenario, number), {})[name] = Figures(*values)
    return runs


def player(name: str) -> Play:
    """Whoever has a name: an engine's scheduler, a rule or an agent of the zoo."""
    if name in _FORMS or name in POLICIES:
        policy = _FORMS.get(name) or POLICIES[name]
        return lambda workload, engine: simulate(workload, engine, policy, predicted=predictions(policy, workload))
    who = QUICK[name] if name in QUICK else load_agent(name)
    return lambda workload, engine: run_contender(who, workload, engine).result


def complete(runs: Runs, scenarios: Sequence[Scenario], draws: int, names: Sequence[str]) -> None:
    """Play whatever is not there yet."""
    plays = {name: player(name) for name in names}
    for number in range(draws):
        for scenario in scenarios:
            missing = [name for name in names if name not in runs.found.get((scenario, number), {})]
            if missing:
                engine = scenario.config
                workload = limited(scenario.workload(number), engine)
                for name in missing:
                    runs.add(scenario, number, name, figures(plays[name](workload, engine)))


@dataclass(frozen=True)
class Run:
    """Everybody on one draw of a scenario.

    Attributes:
        scenario: which.
        default: of the best that engines ship, by mean latency ...
        default_goodput: ... and the most goodput of any, requests per second.
        reached: by contender.
    """

    scenario: Scenario
    default: Figures
    default_goodput: float
    reached: Mapping[str, Figures]

    def mean(self, name: str) -> float:
        """Mean latency over the default's."""
        return self.reached[name].mean_s / self.default.mean_s

    def p99(self, name: str) -> float:
        """The same of p99."""
        return self.reached[name].p99_s / self.default.p99_s

    def goodput(self, name: str) -> float:
        """Goodput over the default's."""
        return self.reached[name].goodput / self.default_goodput


def compared(runs: Runs, scenarios: Sequence[Scenario], draws: int) -> list[Run]:
    """Every draw beside the best default of it, and the best published rule where all of those have played."""
    found = []
    for scenario in scenarios:
        for number in range(draws):
            reached = dict(runs.found[scenario, number])
            if set(PUBLISHED) <= set(reached):
                reached[BEST_PUBLISHED] = min((reached[name] for name in PUBLISHED), key=lambda one: one.mean_s)
            shipped = [reached[name] for name in ENGINES_SHIP]
            best = min(shipped, key=lambda one: one.mean_s)
            found.append(Run(scenario, best, max(one.goodput for one in shipped), reached))
    return found


def by_scenario(runs: Sequence[Run], ratio: Callable[[Run], float]) -> NDArray[np.float64]:
    """(scenarios,) ratios, geometric means over draws."""
    logs: dict[Scenario, list[float]] = {}
    for run in runs:
        logs.setdefault(run.scenario, []).append(float(np.log(ratio(run))))
    return np.exp([float(np.mean(values)) for values in logs.values()])


def ratios(runs: Sequence[Run], ratio: Callable[[Run], float]) -> NDArray[np.float64]:
    """What an interval is over: scenarios, or draws where there are hardly any scenarios."""
    found = by_scenario(runs, ratio)
    return found if len(found) >= _ENOUGH else np.array([ratio(run) for run in runs])


def over_scenarios(ratios: NDArray[np.float64]) -> Ratio:
    """Geometric mean with the interval over scenarios: draws of one scenario are alike, and count once."""
    return paired_ratio(ratios, np.ones(len(ratios)))
