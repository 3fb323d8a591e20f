"""Agents and rivals against the proven optima of the library.

`python -m experiments.board.optimality` prints the table.

The library (`infermax_gym.baselines.optimum.solved`) holds instances of a few requests of a few tokens. Policies meet
them as they are, though they were tuned and trained on requests of thousands of tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.board.rivals import DEFAULTS, load_rivals
from experiments.board.scoreboard import shipped_agents
from infermax_gym.agents.agent import Agent
from infermax_gym.baselines.optimum.solved import solved_instances
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.evaluation import serve
from infermax_gym.workload import Workload

Goal = Literal["makespan", "latency"]
GOALS: tuple[Goal, ...] = ("latency", "makespan")
CLAIRVOYANT = ("sjf-oracle", "srpt-work-oracle", "mc-sf-oracle")


@dataclass(frozen=True, eq=False)
class Proven:
    """An instance and its optimum in seconds."""

    workload: Workload
    engine: EngineConfig
    optimum_s: float


def proven(goal: Goal) -> list[Proven]:
    """The instances of the library whose optimum is proven."""
    return [
        Proven(entry.instance.workload(), entry.instance.engine(), entry.optimum(goal).objective_s)
        for entry in solved_instances()
        if entry.optimum(goal).status == "optimal"
    ]


def ratio_to_optimum(contender: Policy | Agent, goal: Goal, instances: Sequence[Proven]) -> tuple[float, float, float]:
    """Mean and largest ratio to the optimum, and the share of instances where it is reached."""
    ratios = []
    for instance in instances:
        result = serve(contender, instance.workload, instance.engine, predict=predictions)
        reached = result.makespan_s if goal == "makespan" else float(result.latency_s.mean())
        ratios.append(reached / instance.optimum_s)
    return float(np.mean(ratios)), float(np.max(ratios)), float(np.mean(np.array(ratios) < 1.0 + 1e-6))


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    rivals = load_rivals().policies_of("conv-tight-saturated-70b")
    contenders: dict[str, Policy | Agent] = {
        name: POLICIES[name] for name in (*DEFAULTS, *CLAIRVOYANT) if POLICIES[name].chunking
    }
    contenders |= {name: rivals[name] for name in ("global", "global-blend")}
    contenders |= {f"**{name}** (agent)": agent for name, agent in shipped_agents().items() if name != "informed"}
    columns = {goal: proven(goal) for goal in GOALS}
    latency, makespan = (f"{len(columns[goal])} instances" for goal in GOALS)
    print(f"| policy | mean latency ({latency}): mean, worst, optimal | makespan ({makespan}) |")
    print("|---|---|---|")
    for name, contender in contenders.items():
        columns_of = []
        for goal, instances in columns.items():
            mean, worst, share = ratio_to_optimum(contender, goal, instances)
            columns_of.append(f"{mean:.3f}, {worst:.2f}, {100 * share:.0f} %")
        print(f"| {name} | {' | '.join(columns_of)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
