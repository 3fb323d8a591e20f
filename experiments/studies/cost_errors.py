"""How far errors of a cost model move the ranking of schedulers.

    python -m experiments.studies.cost_errors

Coefficients are multiplied by log-normal factors, drawn for each coefficient of a plain term and once for a term that
bends, so that its knot stays. Every scheduler then serves the same requests on the disturbed engine; a comparison is
robust if its sign is the undisturbed one in 95 % of the draws.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import CostModel, CostModelError
from infermax_gym.cost.engines import find_engine
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.streams import stream
from infermax_gym.workload import Workload, make_workload

Floats = NDArray[np.float64]

ENGINES = ("llama-3.1-8b@h100", "qwen3-32b@h100x2", "gpt-oss-120b@h100x2")
WORKLOADS = ("azure-conv", "azure-code", "reasoning")
LOADS = (0.9, 1.2)
SCHEDULERS = (
    "sarathi",
    "vllm-v1",
    "vllm-v1-full-isl",
    "shortest-prompt-first",
    "spf-headroom",
    "least-attained-service",
    "hrrn",
    "larry",
)
SIGMAS = (0.1, 0.2)
GAPS = (0.0, 0.02, 0.05, 0.1, 0.2, np.inf)
_ROBUST = 0.95


@dataclass(frozen=True)
class Scenario:
    """Requests on an engine.

    Attributes:
        title: what it is.
        workload: the requests.
        config: the engine, undisturbed.
    """

    title: str
    workload: Workload
    config: EngineConfig


@dataclass(frozen=True)
class Comparison:
    """Two schedulers on one scenario.

    Attributes:
        scenario: its title.
        better: the one with the lower mean latency on the undisturbed engine.
        worse: the other.
        gap: by how much, as a share of the better one's.
        kept: share of draws with the same sign, by sigma.
    """

    scenario: str
    better: str
    worse: str
    gap: float
    kept: Mapping[float, float]


def disturbed(cost: CostModel, sigma: float, rng: np.random.Generator) -> CostModel:
    """A cost model with other coefficients; drawn again where some batch would take negative time."""
    while True:
        terms = tuple(_disturbed(term, sigma, rng) for term in cost.terms)
        min_terms = tuple(_disturbed(term, sigma, rng) for term in cost.min_terms)
        try:
            return replace(cost, terms=terms, min_terms=min_terms)
        except CostModelError:
            continue


def _disturbed(
    term: tuple[tuple[float, ...], ...], sigma: float, rng: np.random.Generator
) -> tuple[tuple[float, ...], ...]:
    factors = np.exp(sigma * rng.standard_normal(len(term[0])))
    if len(term) > 1:
        factors = factors[:1]
    return tuple(tuple(factors * np.array(form)) for form in term)


def scenarios(num_requests: int, seed: int = 0) -> Iterator[Scenario]:
    """Every engine, traffic and load; the load is the share of what FCFS serves of a backlog."""
    for name, preset in itertools.product(ENGINES, WORKLOADS):
        engine = find_engine(name)
        config = EngineConfig(cost=engine.cost, **engine.sizes)
        one = make_workload(preset, num_requests, seed=seed, rate=1.0)
        backlog = replace(one, arrival_s=np.zeros(num_requests))
        capacity = num_requests / float(simulate(backlog, config, POLICIES["sarathi"]).finish_s.max())
        for load in LOADS:
            arrivals = one.arrival_s / (load * capacity)
            yield Scenario(f"{name}, {preset}, load {load}", replace(one, arrival_s=arrivals), config)


def latencies(scenario: Scenario, cost: CostModel) -> Floats:
    """(num_schedulers,) mean latency of each in seconds."""
    config = replace(scenario.config, cost=cost)
    found = []
    for name in SCHEDULERS:
        result = simulate(scenario.workload, config, POLICIES[name])
        found.append(float(np.nanmean(result.finish_s - scenario.workload.arrival_s)))
    return np.array(found)


def compare(scenario: Scenario, num_draws: int) -> list[Comparison]:
    """All pairs of schedulers."""
    rng = stream(0, "exploration")
    plain = latencies(scenario, scenario.config.cost)
    draws = {
        sigma: np.array([latencies(scenario, disturbed(scenario.config.cost, sigma, rng)) for _ in range(num_draws)])
        for sigma in SIGMAS
    }
    found = []
    for i, j in itertools.permutations(range(len(SCHEDULERS)), 2):
        if plain[i] < plain[j]:
            kept = {sigma: float(np.mean(each[:, i] < each[:, j])) for sigma, each in draws.items()}
            found.append(
                Comparison(scenario.title, SCHEDULERS[i], SCHEDULERS[j], float(plain[j] / plain[i] - 1.0), kept)
            )
    return found


def summary(found: Sequence[Comparison]) -> Table:
    """Comparisons by how far apart the two are."""
    heads = [f"robust at sigma {sigma}" for sigma in SIGMAS]
    table = Table("gap of mean latency", "comparisons", *heads, title="Sign kept in 95 % of draws")
    for low, high in itertools.pairwise(GAPS):
        members = [one for one in found if low <= one.gap < high]
        if members:
            shares = [np.mean([one.kept[sigma] >= _ROBUST for one in members]) for sigma in SIGMAS]
            ends = f"{low:.0%} to {high:.0%}" if np.isfinite(high) else f"over {low:.0%}"
            table.add_row(ends, str(len(members)), *(f"{share:.0%}" for share in shares))
    return table


def pairs(found: Sequence[Comparison]) -> Table:
    """For each pair, in how many scenarios it is robust at the largest sigma, and the widest gap that is not."""
    table = Table("first", "second", "scenarios", "robust", "widest gap not robust", title=f"Pairs, sigma {SIGMAS[-1]}")
    for a, b in itertools.combinations(SCHEDULERS, 2):
        members = [one for one in found if {one.better, one.worse} == {a, b}]
        frail = [one.gap for one in members if one.kept[SIGMAS[-1]] < _ROBUST]
        widest = f"{max(frail):.0%}" if frail else "-"
        table.add_row(a, b, str(len(members)), str(len(members) - len(frail)), widest)
    return table


def main() -> None:
    """Disturb, serve, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--requests", type=int, default=800)
    options = parser.parse_args()
    found = [one for each in scenarios(options.requests) for one in compare(each, options.draws)]
    console = Console(width=120)
    console.print(summary(found))
    console.print(pairs(found))


if __name__ == "__main__":
    main()
