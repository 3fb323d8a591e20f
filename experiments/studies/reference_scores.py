"""What random play, rules, the best plans found and the certified bounds score on every id of the environments.

    python -m experiments.studies.reference_scores --out docs/environments.md

Fifty test seeds, of each the first episode, as the id is registered: the same for every line. Rules run in the kernel
on the requests of the episode. Random play draws the kind first (`infermax_gym.testing.KIND_SHARES`); knobs all anew
for every interval; replicas any alike. A plan is the better one of two searches that know everything, over settings of
a policy with a priority for every request, and over priority lists with thresholds; the engine replays it. Plans take
long, so only the first seeds have them, and the best rule stands beside them on the same seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from experiments.studies.sections import markdown, put
from infermax_gym.baselines.optimum import Instance, certify, score
from infermax_gym.baselines.optimum.annealing.anneal import Annealer
from infermax_gym.baselines.optimum.plan_search import search_plan
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import simulate_fleet
from infermax_gym.engine import EngineConfig, Information, Policy, simulate
from infermax_gym.envs import TEST_SEEDS, ActionLayout, KnobsTeacher
from infermax_gym.evaluation.statistics import mean_and_ci95
from infermax_gym.testing import random_legal
from infermax_gym.workload import Workload

Floats = NDArray[np.float64]

SCHEDULING_IDS = ("InferMax-v0", "InferMaxLongContext-v0", "InferMaxKnobs-v0")
DEFAULTS = ("vllm-v0", "vllm", "sarathi", "trt-max-utilization", "lightllm", "hrrn", "shortest-prompt-first")
"""Defaults of engines, and simple rules: they get a line of their own."""

ROUTER_DEFAULTS = ("round-robin", "least-outstanding", "power-of-two", "vllm-dp", "sal")
FREE = (Information.NONE, Information.BOUND)
"""What a rule may know: no output length."""


@dataclass(frozen=True)
class Line:
    """Mean latencies of an agent in seconds, of the first seeds."""

    agent: str
    latency_s: Floats


def first_episodes(env_id: str, seeds: Iterable[int]) -> list[Any]:
    """The first episode of each seed, before its first decision."""
    env: Any = gym.make(env_id, disable_env_checker=True).unwrapped
    runs = []
    for seed in seeds:
        env.reset(seed=seed)
        runs.append(env.run)
    return runs


def random_play(env_id: str, seeds: Iterable[int]) -> Line:
    """Play at random."""
    env: Any = gym.make(env_id, disable_env_checker=True).unwrapped
    rng, scores = np.random.default_rng(0), []
    env.action_space.seed(0)
    layout = getattr(env, "layout", None)
    for seed in seeds:
        env.reset(seed=seed)
        ended, info = False, dict[str, Any]()
        while not ended:
            action = env.action_space.sample()
            if isinstance(layout, ActionLayout):
                action = random_legal(env.action_masks(), layout, rng)
            _, _, ended, _, info = env.step(action)
        scores.append(info["metrics"]["latency_s"]["mean"])
    return Line("random play", np.array(scores))


def rules(scores: dict[str, Floats], named: Sequence[str]) -> tuple[list[Line], Line]:
    """The lines of the named rules, worst first, and the line of the best of all."""
    lines = sorted((Line(f"`{name}`", scores[name]) for name in named), key=lambda line: -float(line.latency_s.mean()))
    best = min(scores, key=lambda name: float(scores[name].mean()))
    return lines, Line(f"best of {len(scores)} rules, `{best}`", scores[best])


def best_plan(workload: Workload, engine: EngineConfig, tries: int) -> float:
    """Mean latency in seconds of the best plan that either search finds with so many schedules."""
    found = search_plan(workload, engine, "latency", max_evaluations=tries)
    instance = Instance.from_workload(workload, engine)
    annealer = Annealer(instance, "latency")
    annealer.advance(20 * tries)
    values = [score(instance, annealer.plan()).latency_s]
    return min(values if found is None else [*values, found.objective_s])


def free_policies(knobs_on: EngineConfig | None = None) -> dict[str, Policy]:
    """Rules on the engine as it is: no token budget of their own.

    Args:
        knobs_on: only those that the knobs of an environment express, on this engine, as they express it.
    """
    free = {
        name: policy
        for name, policy in POLICIES.items()
        if policy.information in FREE and not policy.max_num_batched_tokens
    }
    if knobs_on is None:
        return free
    expressed = {}
    for name, policy in free.items():
        with suppress(ValueError):
            expressed[name] = KnobsTeacher(policy, knobs_on.max_num_seqs).policy
    return expressed


def scheduling(env_id: str, seeds: Sequence[int], num_plans: int, tries: int) -> list[Line]:
    """The lines of an id whose episodes are one engine's."""
    cases = [(run.episode.workload, run.episode.engine) for run in first_episodes(env_id, seeds)]
    known = free_policies(cases[0][1]) if "Knobs" in env_id else free_policies()
    scores = {
        name: np.array([float(np.nanmean(simulate(*case, policy).latency_s)) for case in cases])
        for name, policy in known.items()
    }
    named, best = rules(scores, [name for name in DEFAULTS if name in scores])
    here = f"first {num_plans} seeds"
    plans = Line(f"best plan found, {here}", np.array([best_plan(*case, tries) for case in cases[:num_plans]]))
    bounds = np.array([certify(*case).mean_latency_s for case in cases])
    return [
        random_play(env_id, seeds),
        *named,
        best,
        *([replace(best, agent=f"the same, {here}", latency_s=best.latency_s[:num_plans]), plans] if num_plans else []),
        Line("certified bound", bounds),
    ]


def alone_s(workload: Workload, engine: EngineConfig) -> float:
    """No fleet of such engines has a smaller mean latency: every request alone on one of them."""
    requests = [workload.trace_slice(i, 1) for i in range(len(workload))]
    return float(np.mean([certify(request, engine, num_functions=1).mean_latency_s for request in requests]))


def routing(env_id: str, seeds: Sequence[int], num_bounds: int) -> list[Line]:
    """The lines of the router's id."""
    runs = first_episodes(env_id, seeds)
    scores = {}
    for router in ROUTERS.values():
        if router.information in FREE:
            ends = [simulate_fleet(run.workload, run.fleet.fleet, router, seed=k) for k, run in enumerate(runs)]
            scores[router.name] = np.array([float(np.nanmean(end.pooled.latency_s)) for end in ends])
    named, best = rules(scores, ROUTER_DEFAULTS)
    bounds = [alone_s(run.workload, run.fleet.fleet.replicas[0].config) for run in runs[:num_bounds]]
    alone = [Line("certified bound, every request alone", np.array(bounds))] if bounds else []
    return [random_play(env_id, seeds), *named, best, *alone]


def shown(lines: Sequence[Line]) -> Table:
    """A table with intervals, and each line beside the best rule on the same seeds."""
    table = Table("agent", "mean latency s", "of the best rule's", "seeds")
    best = next(line for line in lines if line.agent.startswith("best of"))
    for line in lines:
        mean, half = mean_and_ci95(line.latency_s)
        share = mean / float(best.latency_s[: line.latency_s.size].mean())
        table.add_row(line.agent, f"{mean:.2f} +- {half:.2f}", f"{share:.0%}", str(line.latency_s.size))
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=len(TEST_SEEDS), help="test seeds, from the first one")
    parser.add_argument("--plans", type=int, default=10, help="of them, those with plans, of the router bounds")
    parser.add_argument(
        "--tries", type=int, default=4_000, help="schedules of the first search; the other has 20 times"
    )
    parser.add_argument("--ids", nargs="+", default=[*SCHEDULING_IDS, "InferMaxRouter-v0"], help="which ids")
    parser.add_argument("--out", type=Path, default=None, help="put the tables into this page")
    options = parser.parse_args()
    seeds = TEST_SEEDS[: options.episodes]
    for env_id in options.ids:
        lines = (
            routing(env_id, seeds, options.plans)
            if "Router" in env_id
            else scheduling(env_id, seeds, options.plans, options.tries)
        )
        section = f"**`{env_id}`**\n\n{markdown(shown(lines))}"
        print(section, flush=True)
        if options.out is not None:
            page = options.out.read_text(encoding="utf-8")
            options.out.write_text(put(page, f"reference scores of {env_id}", section), encoding="utf-8")


if __name__ == "__main__":
    main()
