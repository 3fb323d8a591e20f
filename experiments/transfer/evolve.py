"""One rule for any engine, its four knobs without units found by evolution: the selector's rival that costs nothing.

    python -m experiments.transfer.evolve

prints the best knobs of each generation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cma
import numpy as np
from numpy.typing import NDArray

from experiments.transfer.fit import Goal
from experiments.transfer.measure import Figures, best_defaults, figures, limited
from experiments.transfer.scenarios import TRAIN, random_scenarios
from infermax_gym.baselines.table.shares import SPF_SHARE, Shares
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.engine.policy import queue_weights
from infermax_gym.workload import Workload

GOAL = Goal(tail=6.0, behind=100.0, at_most=6.0)
SEED = 1


@dataclass(frozen=True, eq=False)
class Task:
    """Requests for an engine, and the best default's figures on them."""

    workload: Workload
    engine: EngineConfig
    default: Figures


def tasks(count: int) -> list[Task]:
    """Every fourth of the first random training scenarios."""
    found = []
    for scenario in random_scenarios(TRAIN, 4 * count, SEED)[::4]:
        workload = limited(scenario.workload(), scenario.config)
        found.append(Task(workload, scenario.config, best_defaults(workload, scenario.config).mean))
    return found


def rule(x: NDArray[np.float64]) -> Shares:
    """Shortest prefill first with an aging of 1e-4 to 0.3, a budget share of 0.8 to 1, a watermark and a headroom."""
    unit = 1.0 / (1.0 + np.exp(-x))
    aging = float(np.exp(np.log(1e-4) + unit[0] * np.log(3000.0)))
    weights = queue_weights(prefill_s=1.0, arrival_s=aging)
    base = replace(SPF_SHARE.base, name="evolved-share", queue_weights=weights, watermark=float(0.1 * unit[2]))
    return Shares(base, prefill_efficiency=float(0.8 + 0.2 * unit[1]), headroom=float(0.5 * unit[3]))


def loss(shares: Shares, training: Sequence[Task]) -> float:
    """The selector's cost, without its comparison of experts."""
    total = 0.0
    for task in training:
        prompt, output = (float(n.mean()) for n in (task.workload.num_prompt_tokens, task.workload.num_output_tokens))
        policy = shares.resolve(task.engine, prompt + 0.5 * output, output)
        reached = figures(simulate(task.workload, task.engine, policy))
        mean = float(np.log(reached.mean_s / task.default.mean_s))
        p99 = float(np.log(reached.p99_s / task.default.p99_s))
        total += min(mean + GOAL.behind * max(mean, 0.0) + GOAL.tail * p99, GOAL.at_most)
    return total / len(training)


def main(arguments: list[str] | None = None) -> int:
    """Evolve and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=38, help="training scenarios")
    parser.add_argument("--generations", type=int, default=14, help="of eight candidates each")
    options = parser.parse_args(arguments)
    training = tasks(options.tasks)
    search = cma.CMAEvolutionStrategy([0.0, 0.5, -2.0, -2.0], 0.8, {"seed": SEED, "popsize": 8, "verbose": -9})
    for generation in range(options.generations):
        candidates = search.ask()
        search.tell(candidates, [loss(rule(np.asarray(x)), training) for x in candidates])
        best = rule(np.asarray(search.result.xbest))
        aging, watermark = best.base.queue_weights[0], best.base.watermark
        knobs = f"aging {aging:.4f} budget {best.prefill_efficiency:.3f} watermark {watermark:.4f}"
        print(f"{generation}: {search.result.fbest:.3f} {knobs} headroom {best.headroom:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
