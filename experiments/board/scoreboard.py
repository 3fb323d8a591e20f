"""The scoreboard: every rival and every shipped agent on held-out trace slices of all scenarios.

    python -m experiments.board.scoreboard                 measures and rewrites the tables of docs/results.md (a few
    minutes) python -m experiments.board.scoreboard --scenarios conv    only scenarios whose name contains "conv",
    printed and not written

A figure of a policy in a scenario is compared with a rival's on the same trace slices: the ratio is the geometric mean
over trace slices, its 95 % interval a bootstrap over trace slices (paired; over several scenarios, trace slices are
resampled in each).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.board.rivals import CLAIRVOYANT_POLICIES, DEFAULTS, Rivals, load_rivals
from experiments.board.scenarios import SCENARIOS, has_slos
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.objectives import goodput_per_s
from infermax_gym.agents.scenario import TEST, TraceSlice, trace_slices
from infermax_gym.agents.storage import ZOO, load_agent, write_bytes
from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.in_time import most_in_time
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Information, Policy, SimulationResult, simulate

NUM_WINDOWS = 16
FIGURES = ("mean", "p99", "busy", "goodput", "in_time")
"""Mean and p99 E2E latency in seconds, busy seconds (the GPU cost); of requests within their SLOs how many per second,
and their share.
"""

AGENTS = ("generalist", "knobs", "informed", "goodput", "conv-evolved", "reasoning-evolved", "mixed-evolved")
BOUND = "bound"
"""The name under which the certified bounds stand on the board."""

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results.md"
BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Board:
    """Everything measured: `figures[scenario][policy]` is (trace slices, 5), in the order of `FIGURES`."""

    figures: Mapping[str, Mapping[str, Array]]

    def log_ratios(self, scenarios: Sequence[str], policy: str, rival: str, figure: str) -> Array:
        """(scenarios, trace slices) ln(policy / rival)."""
        i = FIGURES.index(figure)
        parts = [np.log(self.figures[c][policy][:, i] / self.figures[c][rival][:, i]) for c in scenarios]
        return np.array(parts)

    def mean(self, scenario: str, policy: str, figure: str) -> float:
        """The arithmetic mean over trace slices."""
        return float(self.figures[scenario][policy][:, FIGURES.index(figure)].mean())

    def best(self, scenario: str, policies: Sequence[str], figure: str) -> str:
        """The policy with the best mean figure in a scenario, of those that ran there."""
        there = [p for p in policies if p in self.figures[scenario]]
        sign = -1.0 if figure == "goodput" else 1.0
        return min(there, key=lambda p: sign * self.mean(scenario, p, figure))


@dataclass(frozen=True)
class Share:
    """A ratio with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio(log_ratios: Array, seed: int = 0, num_resamples: int = 2_000) -> Share:
    """Geometric mean over scenarios and trace slices, with a bootstrap over trace slices in each scenario."""
    rng = np.random.default_rng(seed)
    scenarios, count = log_ratios.shape
    index = rng.integers(count, size=(num_resamples, scenarios, count))
    means = np.take_along_axis(log_ratios[None], index, axis=2).mean(axis=(1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    return Share(float(np.exp(log_ratios.mean())), float(np.exp(low)), float(np.exp(high)))


def figures_of(result: SimulationResult, slos: bool) -> tuple[float, float, float, float, float]:
    """In the order of `FIGURES`; goodput and the share in time are 1 where nobody has SLOs."""
    latency_s = result.latency_s[result.finished]
    mean, p99 = float(latency_s.mean()), float(np.quantile(latency_s, 0.99))
    if not slos:
        return mean, p99, result.busy_s, 1.0, 1.0
    goodput = goodput_per_s(result)
    return mean, p99, result.busy_s, goodput, goodput * result.makespan_s / len(result.workload)


Contender = Policy | Agent


def play(contender: Contender, trace_slice: TraceSlice) -> SimulationResult:
    """Serve a trace slice, with the predictions that a contender is told."""
    row = contender if isinstance(contender, Policy) else contender.policy
    if row is not None:
        predicted = None
        if row.information in (Information.PREDICTED, Information.ORACLE):
            predicted = trace_slice.predicted(row.prediction_sigma)
        return simulate(trace_slice.workload, trace_slice.engine, row, predicted=predicted)
    assert isinstance(contender, Agent)
    if contender.controller is None:
        return contender.play(trace_slice.workload, trace_slice.engine)
    controller = contender.controller
    predicted = None if controller.sigma is None else trace_slice.predicted(controller.sigma)
    return controller.play(trace_slice.workload, trace_slice.engine, predicted=predicted)


def shipped_agents() -> dict[str, Agent]:
    """The zoo's policies that run on the scoreboard."""
    return {name: load_agent(name) for name in AGENTS if (ZOO / f"{name}.safetensors").exists()}


def contenders_of(scenario: str, rivals: Rivals, agents: Mapping[str, Agent]) -> dict[str, Policy | Agent]:
    """Everybody who runs in a scenario, by name."""
    rows = {name: POLICIES[name] for name in (*DEFAULTS, *CLAIRVOYANT_POLICIES)}
    own = {
        name: agent
        for name, agent in agents.items()
        if not name.endswith("-evolved") or scenario.startswith(name.split("-")[0])
    }
    return {**rows, **rivals.policies_of(scenario), **{f"agent:{name}": agent for name, agent in own.items()}}


def _bound_of(trace_slice: TraceSlice) -> tuple[float, float, float, float, float]:
    """What no schedule does better, in the order of `FIGURES`; nothing is known of p99."""
    found = certify(trace_slice.workload, trace_slice.engine)
    in_time = most_in_time(trace_slice.workload, trace_slice.engine)
    goodput, share = in_time / found.makespan_s, in_time / len(trace_slice.workload)
    return found.mean_latency_s, np.nan, found.busy_s, goodput, share


def measure(
    scenarios: Sequence[str], rivals: Rivals, agents: Mapping[str, Agent], num_slices: int = NUM_WINDOWS
) -> Board:
    """Run everybody on the held-out trace slices of some scenarios."""

    def one(scenario: str) -> dict[str, Array]:
        held = trace_slices(SCENARIOS[scenario], num_slices, split=TEST)
        figures = {
            name: np.array([figures_of(play(contender, w), has_slos(scenario)) for w in held])
            for name, contender in contenders_of(scenario, rivals, agents).items()
        }
        return {**figures, BOUND: np.array([_bound_of(w) for w in held])}

    with ThreadPoolExecutor(2) as pool:  # the engine releases the interpreter lock
        return Board(dict(zip(scenarios, pool.map(one, scenarios), strict=True)))


def main(arguments: list[str] | None = None) -> int:
    """Measure and write."""
    from experiments.board.tables import page

    parser = argparse.ArgumentParser(description="Measure rivals and agents on held-out trace slices of all scenarios.")
    parser.add_argument("--cells", default="", metavar="TEXT", help="only scenarios whose name contains this")
    parser.add_argument("--windows", type=int, default=NUM_WINDOWS)
    options = parser.parse_args(arguments)
    scenarios = [name for name in SCENARIOS if options.scenarios in name]
    if not scenarios:
        parser.error(f"no cell's name contains {options.scenarios!r}")
    text = page(measure(scenarios, load_rivals(), shipped_agents(), options.trace_slices), options.trace_slices)
    if options.scenarios or options.trace_slices != NUM_WINDOWS:
        print(text)
        return 0
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    write_bytes(PAGE, f"{before}{BEGIN}\n\n{text}\n{END}{after}".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
