"""The reference scores of the suite: `python -m experiments.suite.references`, some ten minutes of one core.

Writes `infermax_gym/suite/v1.json`: for each task its digest, and objective by objective what random play, every
default, a tuned rule, a clairvoyant rule and the best plan found reach on the test episodes, and what bounds them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.in_time import most_in_time
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cost import CostModel
from infermax_gym.engine import Policy, simulate
from infermax_gym.envs.scheduling.episode import Episode
from infermax_gym.suite.cards import DEFAULT_ROUTERS, DEFAULTS, card_file
from infermax_gym.suite.episodes import config_of, digest, episode_of
from infermax_gym.suite.play import objective_of, play_episode, random_agent
from infermax_gym.suite.tasks import Task, tasks_of
from infermax_gym.workload import Workload

CLAIRVOYANT = ("sjf-oracle", "sjf-total-oracle", "srpt-oracle", "mc-sf-oracle")
CAPS = (2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96)
TUNED = ("shortest-prompt-first", "spf-headroom")
NUM_TRAINING_EPISODES = 3
APART_S = 1e4
DIGITS = 12


def reach(policy: Policy, task: Task, episode: Episode) -> float:
    """What a policy of the table reaches in an episode."""
    lengths = predictions(policy, episode.workload, 0)
    return objective_of(task, simulate(episode.workload, episode.engine, policy, predicted=lengths))


def tuned_rule(task: Task) -> Policy:
    """Shortest prompt first with the cap on running requests that is best on training episodes, relative to vllm."""
    episodes = [episode_of(task, v, seed) for v in task.train for seed in range(NUM_TRAINING_EPISODES)]
    base = np.array([reach(POLICIES["vllm"], task, e) for e in episodes])
    rules = [replace(POLICIES[name], name="tuned", max_running=cap) for name in TUNED for cap in (*CAPS, None)]
    return min(rules, key=lambda rule: np.mean([reach(rule, task, e) / b for e, b in zip(episodes, base, strict=True)]))


def fleet_bound(workload: Workload, episode: Episode, num_replicas: int) -> float:
    """A bound on the mean latency of a fleet of engines that are alike, seconds.

    Each request takes at least what it takes alone; and whatever N engines do by some time, one engine N times as fast
    can do by then, an iteration at a time in order of their ends, so that the bound of that engine holds.
    """
    far = replace(workload, arrival_s=np.arange(len(workload), dtype=np.float64) * APART_S)
    alone = certify(far, episode.engine).mean_latency_s
    together = certify(workload, replace(episode.engine, cost=_faster(episode.engine.cost, num_replicas)))
    return max(alone, together.mean_latency_s)


def _faster(cost: CostModel, factor: int) -> CostModel:
    terms, min_terms = (
        tuple(tuple(tuple(c / factor for c in form) for form in term) for term in part)
        for part in (cost.terms, cost.min_terms)
    )
    return replace(cost, name=f"{cost.name}-fast", terms=terms, min_terms=min_terms)


def bound_of(task: Task, episode: Episode) -> float:
    """What no scheduler gets below."""
    workload = episode.workload
    if task.is_fleet:
        return fleet_bound(workload, episode, config_of(task).num_replicas)  # type: ignore[union-attr]
    if task.objective == "misses":
        return 1.0 - most_in_time(workload, episode.engine) / len(workload)
    return float(certify(workload, episode.engine).mean_latency_s)


def engine_record(task: Task, seconds: float) -> dict[str, Any]:
    """References of a task with one engine."""
    episodes = [episode_of(task, v, seed) for v, seed in task.episodes()]
    bounds = [bound_of(task, e) for e in episodes]
    tuned = tuned_rule(task)
    references = {name: [reach(POLICIES[name], task, e) for e in episodes] for name in DEFAULTS}
    references["tuned"] = [reach(tuned, task, e) for e in episodes]
    seeing = {name: [reach(POLICIES[name], task, e) for e in episodes] for name in CLAIRVOYANT}
    best = min(seeing, key=lambda name: np.mean(seeing[name]))
    references["clairvoyant"] = seeing[best]
    plans, proven = [], 0
    for i, episode in enumerate(episodes):
        unlimited = replace(episode.workload, ttft_slo_s=np.full(len(episode.workload), np.inf))
        solution = solve(Instance.from_workload(unlimited, episode.engine), "latency", time_limit_s=seconds)
        assert solution.run is not None
        proven += solution.status == "optimal"
        found = objective_of(task, replace(solution.run, workload=episode.workload))
        plans.append(min(found, references["tuned"][i], *(seeing[name][i] for name in seeing)))
        if task.yardstick == "optimum":
            assert solution.status == "optimal", f"{task.id}: episode {i} is not proven in {seconds} s"
            bounds[i] = found
    references["plan"] = plans
    notes = {
        "tuned_rule": {"base": TUNED[tuned.headroom_tokens > 0.0], "max_running": tuned.max_running},
        "tuned": f"shortest prompt first, at most {tuned.max_running} running, headroom {tuned.headroom_tokens:g}",
        "clairvoyant": best,
        "plan_seconds": seconds,
        "num_proven": proven,
    }
    return {"yardstick": bounds, "references": references, "notes": notes}


def fleet_record(task: Task) -> dict[str, Any]:
    """References of a routing task."""
    references = {
        name: [play_episode(ROUTERS[name], task, v, seed).objective for v, seed in task.episodes()]
        for name in DEFAULT_ROUTERS
    }
    bounds = [bound_of(task, episode_of(task, v, seed)) for v, seed in task.episodes()]
    return {"yardstick": bounds, "references": references, "notes": {}}


def record_of(task: Task, seconds: float) -> dict[str, Any]:
    """All that is shipped of a task."""
    record = fleet_record(task) if task.is_fleet else engine_record(task, seconds)
    random = [play_episode(random_agent(), task, v, seed).objective for v, seed in task.episodes()]
    record["references"] = {"random": random, **record["references"]}
    return {"digest": digest(task), "seeds": task.seeds(), **_rounded(record)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main() -> None:
    """Write the file, task after task; those that are not asked for stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="v1")
    parser.add_argument("--tasks", nargs="*", help="ids; all by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="of search for each plan; ten times that for proofs")
    args = parser.parse_args()
    path = card_file(args.suite)
    found = json.loads(path.read_text())["tasks"] if path.exists() else {}
    for task in tasks_of(args.suite):
        if not args.tasks or task.id in args.tasks:
            seconds = args.seconds * (10.0 if task.yardstick == "optimum" else 1.0)
            found[task.id] = record_of(task, seconds)
            document = {"schema": 1, "suite": args.suite, "tasks": found}
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            print(task.id, {k: round(float(np.mean(v)), 4) for k, v in found[task.id]["references"].items()})
            print("   yardstick", round(float(np.mean(found[task.id]["yardstick"])), 4), found[task.id]["notes"])


if __name__ == "__main__":
    main()
