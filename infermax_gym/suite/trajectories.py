"""Who plays the trajectories of an offline data set, and what is written down of an episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.plan_teacher import NotPlayableError, PlanTeacher
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.engine import Policy
from infermax_gym.envs.routing.teacher import RouterTeacher
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from infermax_gym.streams import stream
from infermax_gym.suite.cards import card_of
from infermax_gym.suite.tasks import SuiteError, Task

Kind = Literal["random", "default", "expert", "optimal"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Any legal action alike; the best default; the tuned rule; the plan of the solver, proven optimal."""

Choose = Callable[[], int]
_SOLVE_S = 20.0


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of a task.

    Attributes:
        seed: of the reset.
        observations: (T + 1, ...) by the name of the part.
        actions: (T,) int64.
        rewards: (T,) float64.
        truncated: whether it reached a limit, and the fallback policy served the rest.
    """

    seed: int
    observations: dict[str, NDArray[Any]]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    truncated: bool


def kinds_of(task: Task) -> tuple[Kind, ...]:
    """Who can play a task: the solver where its plans are proven and can be told in actions, no expert of a fleet."""
    if task.is_fleet:
        return "random", "default"
    return KINDS if task.yardstick == "optimum" else KINDS[:3]


def trajectories(task: Task, kind: Kind, num_episodes: int) -> Iterator[Trajectory]:
    """Episodes of the training split, seeds 0 and up; those that a plan cannot play are passed over.

    Raises:
        SuiteError: nobody of this kind plays the task.
    """
    if kind not in kinds_of(task):
        raise SuiteError(f"{task.id} has no {kind} trajectories; expected one of {', '.join(kinds_of(task))}")
    env = gym.make(task.id)
    seed, found = 0, 0
    while found < num_episodes:
        observation, _ = env.reset(seed=seed)
        try:
            yield _recorded(env, observation, _player(task, kind, env, seed), seed)
            found += 1
        except NotPlayableError:  # it holds a request that runs
            if seed > 20 * num_episodes:
                raise SuiteError(f"{task.id}: hardly any optimal plan can be told in its actions") from None
        seed += 1


def _recorded(env: gym.Env[Any, Any], observation: Any, choose: Choose, seed: int) -> Trajectory:
    seen, actions, rewards = [observation], [], []
    over = truncated = False
    while not over:
        action = choose()
        observation, reward, over, truncated, _ = env.step(action)
        seen.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    parts = {name: np.stack([one[name] for one in seen]) for name in seen[0]}
    return Trajectory(seed, parts, np.array(actions, np.int64), np.array(rewards), truncated)


def _player(task: Task, kind: Kind, env: gym.Env[Any, Any], seed: int) -> Choose:
    inner: Any = env.unwrapped
    if kind == "random":
        rng = stream(seed, "exploration")
        return lambda: int(rng.choice(np.flatnonzero(inner.action_masks())))
    if task.is_fleet:
        router = RouterTeacher(ROUTERS[best_default(task)])
        return lambda: router.action(inner.run)
    if kind == "optimal":
        return _optimal(inner)
    return _like(POLICIES[best_default(task)] if kind == "default" else expert(task), inner)


def best_default(task: Task) -> str:
    """The default that is best on the most variants."""
    return Counter(card_of(task).defaults).most_common(1)[0][0]


def expert(task: Task) -> Policy:
    """The rule that was tuned on training episodes."""
    notes = card_of(task).notes["tuned_rule"]
    return replace(POLICIES[notes["base"]], name="expert", max_running=notes["max_running"])


def _like(policy: Policy, env: InferMaxEnv) -> Choose:
    teacher = PolicyTeacher(policy, env.layout)

    def choose() -> int:
        mask = env.action_masks()
        try:
            action = teacher.action(env)
        except LookupError:  # it wants somebody who has no slot
            action = -1
        if action < 0 or not mask[action]:
            teacher.reset()
            run = env.layout.num_chunk_budgets - 1
            return run if mask[run] else int(mask.argmax())
        return action

    return choose


def _optimal(env: InferMaxEnv) -> Choose:
    episode = env.run.episode
    solution = solve(Instance.from_workload(episode.workload, episode.engine), "latency", time_limit_s=_SOLVE_S)
    if solution.status != "optimal" or solution.plan is None:
        raise NotPlayableError("not proven")
    teacher = PlanTeacher(solution.plan)
    return lambda: teacher.action(env)
