"""What simple agents score on the default configuration of `InferMax-v0`: the yardsticks of docs/environments.md.

    python -m experiments.studies.reference_scores

Random legal play (the kind is drawn first, see `infermax_gym.testing.KIND_SHARES`), and policies of the table as
teachers, with themselves as `base`. Every agent faces the same episodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from infermax_gym.testing import random_legal

TEACHERS = ("sarathi", "vllm-0.13", "shortest-prompt-first", "spf-headroom")
Player = tuple[InferMaxEnv, Callable[[], None], Callable[[], int]]


def players(**settings: Any) -> dict[str, Player]:
    """Agents by name: an environment, what begins an episode, and what picks an action."""
    env = InferMaxEnv(flat=True, **settings)
    rng = np.random.default_rng(0)
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    found: dict[str, Player] = {
        "random legal play": (env, nothing, lambda: random_legal(env.action_masks(), env.layout, rng)),
    }
    for name in TEACHERS:
        policy = POLICIES[name]
        own = InferMaxEnv(flat=True, base=policy, num_waiting_slots=32, num_running_slots=128, **settings)
        teacher = PolicyTeacher(policy, own.layout)
        found[f"{name}, teacher"] = (own, teacher.reset, lambda t=teacher, e=own: t.action(e))  # type: ignore[misc]
    return found


def episode(player: Player, seed: int) -> dict[str, float]:
    """Scores of one episode."""
    env, begin, choose = player
    env.reset(seed=seed)
    begin()
    total, done = 0.0, False
    while not done:
        _, reward, terminated, truncated, info = env.step(choose())
        total += reward
        done = terminated or truncated
    metrics = info["metrics"]
    return {
        "return": total,
        "mean latency s": metrics["latency_s"]["mean"],
        "p99 latency s": metrics["latency_s"]["p99"],
        "mean TTFT s": metrics["ttft_s"]["mean"],
        "preemptions": metrics["num_preemptions"],
        "decisions": metrics["num_decisions"],
    }


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=5, help="episodes of each agent, seeds 0, 1, ...")
    parser.add_argument("--requests", type=int, default=400, help="requests of an episode")
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="factor on arrival times; below 1 raises the load"
    )
    options = parser.parse_args()
    table: Table | None = None
    scale = (options.time_scale, options.time_scale)
    for name, player in players(num_requests=options.requests, time_scale=scale).items():
        scores = [episode(player, seed) for seed in range(options.episodes)]
        if table is None:
            table = Table(title="InferMax-v0, default configuration", title_justify="left")
            for column in ("agent", *scores[0]):
                table.add_column(column, justify="left" if column == "agent" else "right", no_wrap=True)
        means = [float(np.mean([score[column] for score in scores])) for column in scores[0]]
        table.add_row(name, *(f"{mean:,.0f}" if abs(mean) >= 100 else f"{mean:,.2f}" for mean in means))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
