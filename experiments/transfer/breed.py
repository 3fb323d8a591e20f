"""Making the selectors of the zoo: measure experts on random training scenarios, fit, choose on validation scenarios.

    python -m experiments.transfer.breed any-engine --out agents/zoo
    python -m experiments.transfer.breed any-engine-goodput --out agents/zoo

What is measured is kept below --cache and used again.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.transfer.experts import EXPERTS, GOODPUT_EXPERTS
from experiments.transfer.fit import Goal, Training, fit
from experiments.transfer.measure import Measured, Rivals, best_defaults, figures, limited, measure
from experiments.transfer.scenarios import TRAIN, VALIDATE, Scenario, Split, random_scenarios
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.selector import Selector
from infermax_gym.agents.storage import save_agent
from infermax_gym.baselines.table.shares import Shares

SEED = 1
WATCHED = 6
"""`spf-share` with 90 %: half of what a selector learns from is seen while this expert serves."""

P99_AT_MOST = 0.9
"""Of the default's on validation scenarios. They are of one GPU and one model, and on others the tail is longer."""


@dataclass(frozen=True)
class Recipe:
    """How one selector is made.

    Attributes:
        note: what it is, one line.
        experts: what it chooses between.
        goals: what is tried; validation says which is taken.
        training: how its network is trained.
    """

    note: str
    experts: tuple[Shares, ...]
    goals: tuple[Goal, ...]
    training: Training = field(default_factory=Training)


RECIPES = {
    "any-engine": Recipe(
        "one selector for any engine and traffic; knows no lengths; mean latency, at the p99 of the best default",
        EXPERTS,
        (Goal(tail=6.0, behind=100.0, at_most=6.0),),
    ),
    "any-engine-goodput": Recipe(
        "one selector for any engine and traffic; as many requests as possible within limits that suit the engine",
        GOODPUT_EXPERTS,
        tuple(Goal(goodput=True, behind=behind, at_most=4.0) for behind in (5.0, 20.0)),
        Training(steps=1500, noise=0.3),
    ),
}


def measured(split: Split, name: str, count: int, cache: Path) -> list[Measured]:
    """The experts on random scenarios of a split, from the cache where they are there."""
    file = cache / f"{name}-{SEED}-{count}.pickle"
    if file.exists():
        found: list[Measured] = pickle.loads(file.read_bytes())
        return found
    found = []
    for k, scenario in enumerate(random_scenarios(split, count, SEED)):
        other = int(np.random.default_rng(k).integers(len(GOODPUT_EXPERTS)))
        found.append(measure(scenario, [other, WATCHED]))
    cache.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(found))
    return found


@dataclass(frozen=True)
class Score:
    """Of a selector over scenarios, against the best default of each.

    Attributes:
        mean: ratio of mean latencies, geometric mean; p99 and goodput likewise.
        p99: see above.
        goodput: see above.
        worst_mean: the largest ratio of mean latencies.
        worst_goodput: the smallest ratio of goodput.
        share_behind: of the scenarios, where it is more than 2 % (goodput: 1 %) behind.
    """

    mean: float
    p99: float
    goodput: float
    worst_mean: float
    worst_goodput: float
    share_behind: float


def score(selector: Selector, scenarios: Sequence[Scenario], rivals: Sequence[Rivals], goodput: bool) -> Score:
    """Play every scenario."""
    played = [figures(selector.play(limited(one.workload(), one.config), one.config)) for one in scenarios]
    mean = np.log([run.mean_s / rival.mean.mean_s for run, rival in zip(played, rivals, strict=True)])
    p99 = np.log([run.p99_s / rival.mean.p99_s for run, rival in zip(played, rivals, strict=True)])
    good = np.log([run.goodput / rival.goodput.goodput for run, rival in zip(played, rivals, strict=True)])
    behind = good < np.log(0.99) if goodput else mean > np.log(1.02)
    return Score(
        mean=float(np.exp(mean.mean())),
        p99=float(np.exp(p99.mean())),
        goodput=float(np.exp(good.mean())),
        worst_mean=float(np.exp(mean.max())),
        worst_goodput=float(np.exp(good.min())),
        share_behind=float(behind.mean()),
    )


def loss(found: Score, goodput: bool) -> float:
    """What validation chooses by: the goal's figure, and being behind."""
    if goodput:
        return 20.0 * found.share_behind - 0.1 * float(np.log(found.goodput))
    tail = max(float(np.log(found.p99 / P99_AT_MOST)), 0.0)
    return float(np.log(found.mean)) + 2.0 * tail + 5.0 * found.share_behind


def make(recipe: Recipe, train: Sequence[Measured], validate: Sequence[Measured]) -> tuple[Selector, dict[str, Any]]:
    """The selector that does best on validation scenarios, and what its card says of that."""
    scenarios = [one.scenario for one in validate]
    rivals = [best_defaults(limited(one.workload(), one.config), one.config) for one in scenarios]
    tried = []
    for goal in recipe.goals:
        selector = fit([one.of(recipe.experts) for one in train], recipe.experts, goal, recipe.training)
        found = score(selector, scenarios, rivals, goal.goodput)
        print(f"{goal}: {found}", file=sys.stderr, flush=True)
        tried.append((loss(found, goal.goodput), selector, goal, found))
    _, selector, goal, found = min(tried, key=lambda one: one[0])
    return selector, {"goal": asdict(goal), "validation": asdict(found)}


def main(arguments: list[str] | None = None) -> int:
    """Make a shipped selector."""
    parser = argparse.ArgumentParser(description="Make a selector of the zoo.")
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--train", type=int, default=700, help="random training scenarios")
    parser.add_argument("--validate", type=int, default=80, help="random validation scenarios")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/transfer"), metavar="DIR", help="keeps what is measured"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), metavar="DIR", help="gets NAME.safetensors")
    options = parser.parse_args(arguments)
    train = measured(TRAIN, "train", options.train, options.cache)
    validate = measured(VALIDATE, "validate", options.validate, options.cache)
    recipe = RECIPES[options.name]
    selector, chosen = make(recipe, train, validate)
    command = (
        f"python -m experiments.transfer.breed {options.name} --train {options.train} --validate {options.validate}"
    )
    training = {"algo": "cost-sensitive classification", "command": command, "seed": SEED, **chosen}
    options.out.mkdir(parents=True, exist_ok=True)
    card = {"note": recipe.note, "training": training}
    save_agent(options.out / f"{options.name}.safetensors", Agent(options.name, selector=selector, card=card))
    return 0


if __name__ == "__main__":
    sys.exit(main())
