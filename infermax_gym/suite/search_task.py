"""A scheduler's score, for programs that search one: on training seeds while they search, on the test seeds at the end.

    score(ExpressionPolicy("known", max_running="10"), "long-context")["score"]

`score` takes a `Policy`, an `ExpressionPolicy` or the source of a Python scheduler, which runs in a process of its own
(`infermax_gym.suite.sandbox`) and hands back decisions, which the engine carries out again: it cannot name its score.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.in_time import most_in_time
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Policy, SchedulerError, simulate
from infermax_gym.suite.cards import DEFAULTS, card_of
from infermax_gym.suite.episodes import episode_of
from infermax_gym.suite.expressions import ExpressionPolicy
from infermax_gym.suite.play import check_rules, objective_of
from infermax_gym.suite.replay import replay
from infermax_gym.suite.sandbox import Limits, decisions_of
from infermax_gym.suite.tasks import SuiteError, Task, Variant, task_of

Floats = NDArray[np.float64]
Episodes = tuple[tuple[Variant, int], ...]


def score(
    policy: Policy | ExpressionPolicy | str,
    task: str = "long-context",
    *,
    held_out: bool = False,
    num_episodes: int = 4,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """How good a scheduler is on a task; no input makes it raise, but a task that is not there or routes requests.

    Args:
        policy: a setting of knobs, expressions, or Python source that defines a class `Scheduler`.
        task: its id or short name.
        held_out: on the test episodes; else on training episodes.
        num_episodes: training episodes, seeds 0 and up, for each variant.
        limits: of the process that runs source.

    Returns:
        "score" (0: the best default, 1: the bound or optimum), "objective" and "bound" (means, less is better),
        "distance" (how far above the bound: objective - bound), "objectives" (by episode), "error" (None, or a line
        that says what was wrong; then the score is -inf and figures are missing).
    """
    chosen = task_of(task)
    if chosen.is_fleet:
        raise SuiteError(f"{chosen.id} is for routers; score takes schedulers")
    episodes = chosen.episodes() if held_out else training_episodes(chosen, num_episodes)
    zero, one = references(chosen, held_out, num_episodes)
    try:
        reached = _reached(policy, chosen, episodes, limits or Limits())
    except (SuiteError, SchedulerError, ValueError, ArithmeticError) as error:
        return {"score": -np.inf, "error": " ".join(str(error).split())}
    spans = card_of(chosen).span if held_out else _spans(chosen, zero - one)
    return {
        "score": float(((zero - reached) / spans).mean()),
        "objective": float(reached.mean()),
        "bound": float(one.mean()),
        "distance": float((reached - one).mean()),
        "objectives": reached.tolist(),
        "error": None,
    }


def training_episodes(task: Task, num_episodes: int) -> Episodes:
    """Variants to train on, each with seeds 0 and up."""
    return tuple((variant, seed) for variant in task.train for seed in range(num_episodes))


@lru_cache(maxsize=32)
def references(task: Task, held_out: bool, num_episodes: int) -> tuple[Floats, Floats]:
    """Objectives of the best default of each variant, and bounds, episode by episode."""
    if held_out:
        card = card_of(task)
        return card.zero, card.one
    drawn = [episode_of(task, v, seed) for v, seed in training_episodes(task, num_episodes)]
    table = np.array(
        [[objective_of(task, simulate(e.workload, e.engine, POLICIES[n])) for e in drawn] for n in DEFAULTS]
    )
    by_variant = table.reshape(len(DEFAULTS), -1, num_episodes)
    best = by_variant.mean(2).argmin(0)
    zero = np.concatenate([by_variant[b, i] for i, b in enumerate(best)])
    if task.objective == "misses":
        return zero, np.array([1.0 - most_in_time(e.workload, e.engine) / len(e.workload) for e in drawn])
    return zero, np.array([certify(e.workload, e.engine).mean_latency_s for e in drawn])


def _spans(task: Task, gaps: Floats) -> Floats:
    means = gaps.reshape(len(task.train), -1).mean(1)
    return np.repeat(means, gaps.size // means.size)


def _reached(policy: Policy | ExpressionPolicy | str, task: Task, episodes: Episodes, limits: Limits) -> Floats:
    if isinstance(policy, str):
        packed = decisions_of(policy, task, episodes, limits)
        return np.array([replay(task, v, s, text) for (v, s), text in zip(episodes, packed, strict=True)])
    check_rules(policy, task)
    drawn = [episode_of(task, v, s) for v, s in episodes]
    return np.array([objective_of(task, simulate(e.workload, e.engine, policy)) for e in drawn])
