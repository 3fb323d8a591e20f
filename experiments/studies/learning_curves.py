"""Learning on `InferMaxLongContext-v0`: rules, ten training seeds of MaskablePPO, and their curves.

    python -m experiments.studies.learning_curves --picture docs/pictures/learning.png
    python -m experiments.studies.learning_curves --factors --seeds 3 --steps 100000

The second command changes one thing of the task or of the learner at a time. The learner is that of
examples/maskable_ppo.py. Every score is the mean latency of the first episode of the same 50 test seeds, which no lane
trains on; rules run in the kernel on the same requests.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Information, Policy, simulate
from infermax_gym.engine.policy import queue_weights
from infermax_gym.envs import VARIANTS
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.episode import Episode
from infermax_gym.testing import random_legal

EXAMPLE = import_module("examples.maskable_ppo")  # scripts, not a package of the project
TASK: dict[str, Any] = EXAMPLE.TASK
FIRST_TEST_SEED: int = EXAMPLE.FIRST_TEST_SEED
NUM_EPISODES = 50
CAPPED = replace(POLICIES["spf-headroom"], headroom_tokens=0.0)
CLAIRVOYANT = replace(
    CAPPED,
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_known_tokens=0.1),
    information=Information.ORACLE,
)
FACTORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    **{name: (settings, {}) for name, settings in VARIANTS.items()},
    "gamma 0.95": ({}, {"gamma": 0.95}),
    "gamma 0.999": ({}, {"gamma": 0.999}),
    "gamma 1": ({}, {"gamma": 1.0}),
    "rewards as they are": ({}, {"scale_rewards": False}),
}
"""What is changed: settings of the task, by the name of the variant, and of the learner."""
CAPS = (4, 6, 8, 10, 12, 16, 24)


def episodes() -> list[Episode]:
    """The test episodes."""
    env = InferMaxEnv(flat=True, **TASK)
    found = []
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + NUM_EPISODES):
        env.reset(seed=seed)
        found.append(env.run.episode)
    return found


def latencies(policy: Policy, tests: list[Episode]) -> NDArray[np.float64]:
    """(NUM_EPISODES,) mean latency in seconds of a policy on each test episode."""
    scores = []
    for test in tests:
        truth = test.workload.num_output_tokens.astype(np.float64)
        known = truth if policy.information == Information.ORACLE else None
        scores.append(float(np.mean(simulate(test.workload, test.engine, policy, predicted=known).latency_s)))
    return np.array(scores)


def random_latencies() -> NDArray[np.float64]:
    """(NUM_EPISODES,) of random legal play, the kind drawn first."""
    env, rng, scores = InferMaxEnv(flat=True, **TASK), np.random.default_rng(0), []
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + NUM_EPISODES):
        env.reset(seed=seed)
        done, info = False, dict[str, Any]()
        while not done:
            _, _, terminated, truncated, info = env.step(random_legal(env.action_masks(), env.layout, rng))
            done = terminated or truncated
        scores.append(info["metrics"]["latency_s"]["mean"])
    return np.array(scores)


class Curve(BaseCallback):
    """Notes the test score every so many decisions."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.points: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.every * len(self.points):
            self.note()

    def note(self) -> None:
        """One more point."""
        self.points.append((self.num_timesteps, EXAMPLE.test_scores(self.model, NUM_EPISODES)["mean_latency_s"]))


def train(seed: int, steps: int, every: int) -> dict[str, Any]:
    """One training seed: its curve, the last scores and the wall seconds, tests included."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    model, curve = EXAMPLE.learner(seed), Curve(every)
    model.learn(steps, callback=curve)
    curve.note()
    wall_s = time.perf_counter() - began
    return {"seed": seed, "points": curve.points, "wall_s": wall_s, **EXAMPLE.test_scores(model, NUM_EPISODES)}


def train_changed(name: str, seed: int, steps: int) -> dict[str, float]:
    """The last scores of a training seed with one thing changed."""
    torch.set_num_threads(1)
    settings, arguments = FACTORS[name]
    task = {**TASK, **settings}
    model = EXAMPLE.learner(seed, task, **arguments)
    model.learn(steps)
    scores: dict[str, float] = EXAMPLE.test_scores(model, NUM_EPISODES, task)
    return scores


def compare_factors(console: Console, num_seeds: int, steps: int) -> None:
    """Print the last scores of every factor."""
    jobs = [(name, seed) for name in FACTORS for seed in range(num_seeds)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        scores = list(pool.map(train_changed, *zip(*jobs, strict=True), [steps] * len(jobs)))
    board = Table("what is changed", "mean latency s, by seed", "finished by the fallback, by seed")
    for name in FACTORS:
        mine = [score for (other, _), score in zip(jobs, scores, strict=True) if other == name]
        board.add_row(
            name,
            ", ".join(f"{score['mean_latency_s']:.1f}" for score in mine),
            ", ".join(f"{score['finished_by_fallback']:.0f}" for score in mine),
        )
    console.print(board)


def draw(path: Path, runs: list[dict[str, Any]], levels: dict[str, float]) -> None:
    """The curves, and what rules score as lines."""
    figure, axes = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
    x = np.array([point[0] for point in runs[0]["points"]]) / 1e3
    curves = np.array([[point[1] for point in run["points"]] for run in runs])
    for curve in curves:
        axes.plot(x, curve, color="#2b6cb0", alpha=0.25, lw=1)
    axes.plot(x, np.median(curves, axis=0), color="#2b6cb0", lw=2.5)
    axes.annotate(
        "MaskablePPO: median, ten seeds",
        (x[-1], float(np.median(curves[:, -1]))),
        xytext=(-6, -16),
        textcoords="offset points",
        ha="right",
        color="#2b6cb0",
        fontweight="bold",
    )
    colors = ("#a0aec0", "#c05621", "#2f855a", "#6b46c1")
    shifts = (0, 0, 7, -7)  # points: the last two are close together
    for (name, level), color, shift in zip(levels.items(), colors, shifts, strict=True):
        axes.axhline(level, color=color, lw=1.3, ls=(0, (5, 3)))
        axes.annotate(
            f"{name}  {level:.1f} s",
            (1.01, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, shift),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=9,
        )
    axes.set(xlabel="decisions learned from, thousands", ylabel="mean latency on test episodes, s")
    axes.set_xlim(0, x[-1])
    axes.set_yscale("log")
    axes.set_ylim(0.75 * min(levels.values()), 1.05 * curves.max())
    ticks = [t for t in (10, 12, 15, 20, 30, 40, 60, 80) if t <= curves.max()]
    axes.set_yticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.2)
    axes.set_title("InferMaxLongContext-v0: greedy play while learning", loc="left", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def interval(scores: NDArray[np.float64]) -> str:
    """Mean and 95 % interval of the mean over episodes."""
    return f"{scores.mean():.2f} +- {1.96 * scores.std(ddof=1) / np.sqrt(scores.size):.2f}"


def reference(console: Console) -> dict[str, float]:
    """Print what rules score; returns the levels of the picture."""
    tests = episodes()
    known = [policy for policy in POLICIES.values() if policy.information in (Information.NONE, Information.BOUND)]
    table = {policy.name: latencies(policy, tests) for policy in known}
    best = sorted(table, key=lambda name: float(table[name].mean()))
    capped = {cap: latencies(replace(CAPPED, name="capped", max_running=cap), tests) for cap in CAPS}
    oracle = {cap: latencies(replace(CLAIRVOYANT, name="oracle", max_running=cap), tests) for cap in CAPS}
    cap, known_cap = (min(group, key=lambda c, g=group: float(g[c].mean())) for group in (capped, oracle))  # type: ignore[misc]
    chance = random_latencies()
    board = Table("agent", "mean latency s", title=f"{NUM_EPISODES} test episodes", title_justify="left")
    board.add_row("random legal play", interval(chance))
    for name in ("sarathi", "vllm-v1", "spf-headroom", *best[2::-1]):
        board.add_row(name, interval(table[name]))
    board.add_row(f"shortest prompt first, at most {cap} running", interval(capped[cap]))
    board.add_row(f"the same, output lengths known, at most {known_cap}", interval(oracle[known_cap]))
    console.print(board)
    return {
        "random play": float(chance.mean()),
        "best rule": float(table[best[0]].mean()),
        "tuned cap": float(capped[cap].mean()),
        "lengths known": float(oracle[known_cap].mean()),
    }


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="training seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=200_000, help="decisions of a training seed")
    parser.add_argument("--every", type=int, default=8_192, help="decisions between two tests")
    parser.add_argument("--picture", type=Path, default=None, help="draw the curves into this file")
    parser.add_argument("--factors", action="store_true", help="change one thing at a time instead; no curves")
    options = parser.parse_args()
    console = Console(width=110)
    if options.factors:
        compare_factors(console, options.seeds, options.steps)
        return
    levels = reference(console)
    seeds = range(options.seeds)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(train, seeds, [options.steps] * len(seeds), [options.every] * len(seeds)))
    board = Table("seed", "mean latency s", "below the best rule", "passed it for good at", "by the fallback", "wall s")
    for run in runs:
        worse = [k for k, score in run["points"] if score >= levels["best rule"]]
        after = next((k for k, _ in run["points"] if k > max(worse, default=-1)), None)
        board.add_row(
            str(run["seed"]),
            f"{run['mean_latency_s']:.2f}",
            f"{1 - run['mean_latency_s'] / levels['best rule']:.1%}",
            "never" if after is None else f"{after:,}",
            f"{run['finished_by_fallback']:.1f}",
            f"{run['wall_s']:.0f}",
        )
    console.print(board)
    if options.picture is not None:
        draw(options.picture, runs, levels)


if __name__ == "__main__":
    main()
