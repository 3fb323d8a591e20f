"""Whom learned policies are compared with: the usual policies, and one family tuned as hard as those.

The family is the action of `InferMaxKnobs-v0`: a linear queue key over arrival (aging), known tokens, their logarithm
and generated tokens; admission headroom; a cap on running requests; the prefills' share of the budget; a linear victim
key. It holds FCFS, shortest-first, least-attained-service, their aged blends and every headroom. Settings:

    default      each policy of the table as people run it
    global       ONE setting of the family, tuned over the training trace slices of all scenarios
    per-cell     the same family tuned on the training trace slices of each scenario: the hard one
    informed     per-cell, with noisy predicted lengths and the class in the queue key
    clairvoyant  per-cell, with true lengths in the queue key, or a clairvoyant policy of the table where that is better

`python -m experiments.board.rivals --out experiments/board/rivals.json` tunes them again and writes the actions;
without `--out` they are printed. `--harder SCENARIO,...` says what a longer search on more trace slices would gain for
the per-cell rule, `--tail SCENARIO,...` how low p99 gets where nothing else counts; both write nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.board.scenarios import SCENARIOS, has_slos
from infermax_gym.agents.evolution import (
    FCFS,
    SHORTEST_FIRST,
    Vector,
    action_of,
    evolve,
    minimise,
    policy_loss,
    tuned_policy,
)
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TEST, TRAIN, TraceSlice, trace_slices
from infermax_gym.agents.storage import write_bytes
from infermax_gym.engine import Policy
from infermax_gym.envs.knobs.layout import KNOB_NAMES

DEFAULTS = (
    "vllm-v0",
    "vllm-0.13",
    "vllm",
    "sarathi",
    "trt-max-utilization",
    "lightllm",
    "srf",
    "shortest-prompt-first",
    "least-attained-service",
    "hrrn",
    "fcfs-headroom",
    "spf-headroom",
)
"""Policies of the table as people run them; none knows output lengths."""

CLAIRVOYANT_POLICIES = ("sjf-oracle", "srpt-oracle", "mc-sf-oracle")
SIGMA = 0.6
"""Log-normal error of the predicted lengths that informed rules and agents see."""

MEAN = Objective()
BLEND = Objective(mean_latency=1.0, p99_latency=0.5)
TAIL = Objective(mean_latency=0.0, p99_latency=1.0)
COST = Objective(mean_latency=0.0, busy=1.0)
GOODPUT = Objective(mean_latency=0.0, goodput=1.0)

FILE = Path(__file__).parent / "rivals.json"
NUM_SLICES = 4
"""Training trace slices of a scenario."""

LEAST_ATTAINED = action_of(
    aging=0.05,
    known_tokens=0.05,
    generated_tokens=0.5,
    headroom=-0.6,
    max_running=0.9,
    prefill_share=1.0,
    victim_generated=0.5,
)
"""Least attained service, with aging and headroom."""

STARTS = (SHORTEST_FIRST, LEAST_ATTAINED)
"""Where searches begin."""


@dataclass(frozen=True)
class Rivals:
    """Tuned settings of the family, as actions.

    Attributes:
        overall: by objective ("mean", "blend"): the global setting.
        per_cell: by objective ("mean", "cost", "goodput"), what is known ("informed", "clairvoyant") or both
            ("informed-goodput", "clairvoyant-cost", "clairvoyant-goodput"), then by scenario.
    """

    overall: dict[str, list[float]] = field(default_factory=dict)
    per_cell: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def policies_everywhere(self) -> dict[str, Policy]:
        """The policies tuned for all scenarios at once, by name."""
        names = {"global": "mean", "global-blend": "blend"}
        return {name: tuned_policy(np.array(self.overall[k]), name, predicted_sigma=None) for name, k in names.items()}

    def policies_of(self, scenario: str) -> dict[str, Policy]:
        """The tuned policies of a scenario by name."""
        policies = self.policies_everywhere()
        for name, by_scenario in self.per_cell.items():
            if scenario in by_scenario:
                sigma = _sigma(name)
                label = "per-cell" if name == "mean" else name if sigma is not None else f"per-cell-{name}"
                policies[label] = tuned_policy(np.array(by_scenario[scenario]), label, predicted_sigma=sigma)
        return policies


def _sigma(name: str) -> float | None:
    if name.startswith("informed"):
        return SIGMA
    return 0.0 if name.startswith("clairvoyant") else None


def load_rivals() -> Rivals:
    """The rivals as they were last tuned."""
    record: dict[str, Any] = json.loads(FILE.read_text())
    return Rivals(record["global"], record["per_cell"])


def tune_global(
    objective: Objective, training: Mapping[str, Sequence[TraceSlice]], generations: int, seed: int = 0
) -> Vector:
    """One setting for all scenarios: the mean loss over scenarios is minimised, from each of `STARTS`."""

    def loss(action: Vector) -> float:
        policy = tuned_policy(action, "global", predicted_sigma=None)
        return float(np.mean([policy_loss(policy, held, objective) for held in training.values()]))

    results = [minimise(loss, start, seed=seed, spread=0.2, population=14, generations=generations) for start in STARTS]
    return min(results, key=lambda r: r.loss).best


def tune_cell(
    objective: Objective,
    training: Sequence[TraceSlice],
    starts: Iterable[Vector],
    generations: int,
    sigma: float | None = None,
    seed: int = 0,
) -> Vector:
    """The family tuned for one scenario; it begins at the better half of what is known and goes on from the best."""

    def loss(start: Vector) -> float:
        return policy_loss(tuned_policy(start, "start", predicted_sigma=sigma), training, objective)

    ranked = sorted(starts, key=loss)[:2]
    results = [
        evolve(
            training,
            seed=seed,
            generations=generations,
            objective=objective,
            predicted_sigma=sigma,
            start=start,
            spread=0.15,
            population=12,
        )
        for start in ranked
    ]
    return min(results, key=lambda r: r.loss).action


def tune(generations_global: int = 60, generations: int = 25, report: Any = print) -> Rivals:
    """Tune everything: some 20 minutes of CPU time."""
    held = {name: trace_slices(scenario, NUM_SLICES, split=TRAIN) for name, scenario in SCENARIOS.items()}
    two = {name: some[:2] for name, some in held.items()}
    rivals = Rivals()
    for name, objective in (("mean", MEAN), ("blend", BLEND)):
        rivals.overall[name] = _plain(tune_global(objective, two, generations_global))
        report(f"global {name}: {rivals.overall[name]}")
    overall = np.array(rivals.overall["mean"])
    starts = (*STARTS, overall)
    informed = [np.append(start, 0.0) for start in starts] + [np.append(_with_lengths(s, 0.3), 0.0) for s in starts]
    truth = [_with_lengths(start, 0.3) for start in starts]
    jobs: list[tuple[str, Objective, list[Vector], float | None]] = [
        ("mean", MEAN, list(starts), None),
        ("cost", COST, list(starts), None),
        ("goodput", GOODPUT, list(starts), None),
        ("informed", MEAN, informed, SIGMA),
        ("informed-goodput", GOODPUT, informed, SIGMA),
        ("clairvoyant", MEAN, truth, 0.0),
        ("clairvoyant-cost", COST, truth, 0.0),
        ("clairvoyant-goodput", GOODPUT, truth, 0.0),
    ]
    for name, objective, begin, sigma in jobs:
        scenarios = [scenario for scenario in SCENARIOS if "goodput" not in name or has_slos(scenario)]
        if name.endswith("cost"):
            scenarios = [scenario for scenario in scenarios if scenario.startswith(("reasoning", "rollouts"))]
        rivals.per_cell[name] = {
            scenario: _plain(tune_cell(objective, held[scenario], begin, generations, sigma)) for scenario in scenarios
        }
        report(f"per-cell {name}: {len(scenarios)} scenarios")
    return rivals


def _with_lengths(action: Vector, weight: float) -> Vector:
    changed = action.copy()
    changed[KNOB_NAMES.index("predicted_remaining")] = weight
    return changed


def _plain(action: Vector) -> list[float]:
    return [round(float(x), 5) for x in action]


def harder(name: str, num_slices: int = 16, generations: int = 100, seed: int = 0) -> tuple[float, float]:
    """Mean latency on held-out slices over that of the shipped per-cell rule, geometric; and on the training slices.

    The search begins where the shipped one ended and at the global setting, and has four times the trace slices and the
    generations.
    """
    rivals = load_rivals()
    shipped = np.array(rivals.per_cell["mean"][name])
    training, held = (trace_slices(SCENARIOS[name], num_slices, split=split, seed=seed) for split in (TRAIN, TEST))
    starts = (shipped, np.array(rivals.overall["mean"]))
    found = tune_cell(MEAN, training, starts, generations, seed=seed + 1)
    policies = [tuned_policy(action, "per-cell", predicted_sigma=None) for action in (found, shipped)]
    on_held, on_training = (
        policy_loss(policies[0], some, MEAN) - policy_loss(policies[1], some, MEAN) for some in (held, training)
    )
    return float(np.exp(on_held)), float(np.exp(on_training))


def tail(name: str, num_slices: int = 16) -> tuple[float, float]:
    """p99 latency on held-out trace slices over that of the global setting, and mean over per-cell's, both geometric.

    Of the family tuned for this scenario's p99 and nothing else; the search also begins at first come, first served.
    """
    rivals = load_rivals()
    training = trace_slices(SCENARIOS[name], NUM_SLICES, split=TRAIN)
    held = trace_slices(SCENARIOS[name], num_slices, split=TEST)
    starts = (FCFS, *(np.array(rivals.overall[key]) for key in ("mean", "blend")))
    policy = tuned_policy(tune_cell(TAIL, training, starts, 25), "tail", predicted_sigma=None)
    policies = rivals.policies_of(name)
    p99 = policy_loss(policy, held, TAIL) - policy_loss(policies["global"], held, TAIL)
    mean = policy_loss(policy, held, MEAN) - policy_loss(policies["per-cell"], held, MEAN)
    return float(np.exp(p99)), float(np.exp(mean))


def _known(names: str) -> list[str]:
    """Names of scenarios, separated by commas.

    Raises:
        ValueError: there is no such scenario.
    """
    found = names.split(",")
    for name in found:
        if name not in SCENARIOS:
            raise ValueError(f"unknown scenario {name!r}; scenarios have names such as {next(iter(SCENARIOS))!r}")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Tune and print or write, or say what tuning harder would gain."""
    parser = argparse.ArgumentParser(description="Tune the rivals of the scoreboard.")
    parser.add_argument("--harder", metavar="NAMES", help="scenarios to tune harder, as a test; nothing is written")
    parser.add_argument(
        "--tail", metavar="NAMES", help="scenarios to tune for p99 alone, as a test; nothing is written"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of the actions; by default they are printed")
    options = parser.parse_args(arguments)
    try:
        longer, tails = ([] if names is None else _known(names) for names in (options.harder, options.tail))
    except ValueError as error:
        parser.error(str(error))
    for name in longer:
        on_held, on_training = harder(name)
        print(f"{name}: {on_held:.3f} on held-out trace slices, {on_training:.3f} on training trace slices", flush=True)
    reached = []
    for name in tails:
        reached.append(tail(name))
        print(f"{name}: p99 {reached[-1][0]:.3f} of global, mean {reached[-1][1]:.3f} of per-cell", flush=True)
    if tails:
        p99, mean = np.exp(np.log(reached).mean(0))
        print(f"{len(tails)} scenarios: p99 {p99:.3f} of global, mean {mean:.3f} of per-cell")
    if longer or tails:
        return
    rivals = tune(report=lambda line: print(line, file=sys.stderr, flush=True))
    record = {"global": rivals.overall, "per_cell": rivals.per_cell}
    text = json.dumps(record, indent=1)
    if options.out is None:
        print(text)
    else:
        write_bytes(options.out, text.encode())


if __name__ == "__main__":
    main()
