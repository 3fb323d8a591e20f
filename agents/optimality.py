"""Agents and rivals against proven optima of small instances: `python -m agents.optimality` prints the table.

Instances are drawn at random: five requests of a few tokens, memory for about two of them, half of them with arrivals
over time. Only those count whose optimum `baselines.optimum` proves within the time limit. Policies meet them as they
are, though they were tuned and trained on requests of thousands of tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agents.agent import Agent
from agents.rivals import DEFAULTS, load_rivals
from agents.scoreboard import shipped_agents
from baselines.optimum.instance import Instance
from baselines.optimum.portfolio import solve
from baselines.policies import POLICIES
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.evaluation import serve
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

Goal = Literal["makespan", "latency"]
GOALS: tuple[Goal, ...] = ("latency", "makespan")
COST = "llama3-70b-a100x4"


@dataclass(frozen=True, eq=False)
class Proven:
    """An instance and its optimum in seconds."""

    workload: Workload
    engine: EngineConfig
    optimum_s: float


def draw(number: int, num_requests: int = 5) -> tuple[Workload, EngineConfig]:
    """The instance of a number."""
    rng = stream(number, "workload")
    prompts = rng.integers(2, 17, num_requests)
    outputs = rng.integers(2, 13, num_requests)
    arrivals = np.sort(rng.uniform(0.0, 0.4, num_requests)) if number % 2 else np.zeros(num_requests)
    peaks = prompts + outputs - 1
    engine = EngineConfig(cost=COSTS[COST], num_kv_tokens=int(1.3 * peaks.max()), block_size=1)
    return Workload(arrivals - arrivals[0], prompts, outputs), engine


def proven(goal: Goal, count: int, time_limit_s: float) -> list[Proven]:
    """Those of the first `count` instances whose optimum is proven in time."""
    found = []
    for number in range(count):
        workload, engine = draw(number)
        solution = solve(Instance.from_workload(workload, engine), goal, time_limit_s=time_limit_s)
        if solution.status == "optimal":
            found.append(Proven(workload, engine, solution.objective_s))
    return found


def ratio_to_optimum(contender: Policy | Agent, goal: Goal, instances: Sequence[Proven]) -> tuple[float, float, float]:
    """Mean and largest ratio to the optimum, and the share of instances where it is reached."""
    ratios = []
    for instance in instances:
        result = serve(contender, instance.workload, instance.engine)
        reached = result.makespan_s if goal == "makespan" else float(result.latency_s.mean())
        ratios.append(reached / instance.optimum_s)
    return float(np.mean(ratios)), float(np.max(ratios)), float(np.mean(np.array(ratios) < 1.0 + 1e-6))


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Agents and rivals against proven optima of small instances.")
    parser.add_argument("--instances", type=int, default=40)
    parser.add_argument("--time-limit", type=float, default=2.0, metavar="S", help="seconds for each proof")
    options = parser.parse_args(arguments)
    rivals = load_rivals().rows_of("conv-tight-saturated-70b")
    contenders: dict[str, Policy | Agent] = {name: POLICIES[name] for name in DEFAULTS}
    contenders |= {name: rivals[name] for name in ("global", "global-blend")}
    contenders |= {f"**{name}** (agent)": agent for name, agent in shipped_agents().items() if name != "informed"}
    columns = {goal: proven(goal, options.instances, options.time_limit) for goal in GOALS}
    counts = {goal: f"{len(some)} of {options.instances} proven" for goal, some in columns.items()}
    print(f"| policy | mean latency ({counts['latency']}): mean, worst, optimal | makespan ({counts['makespan']}) |")
    print("|---|---|---|")
    for name, contender in contenders.items():
        cells = []
        for goal, instances in columns.items():
            mean, worst, share = ratio_to_optimum(contender, goal, instances)
            cells.append(f"{mean:.3f}, {worst:.2f}, {100 * share:.0f} %")
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
