"""Playing random legal episodes and checking everything that must hold on the way.

For whoever changes an environment, wraps one or trains on a configuration of their own: `play_random` takes any
variant of `InferMax-v0` or `InferMaxKnobs-v0`, scalar or vector, wrapped or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from infermax_gym.engine import InvariantChecker
from infermax_gym.envs.scheduling.episode import Run
from infermax_gym.envs.scheduling.layout import ActionLayout, Kind
from infermax_gym.envs.status import RUNNING_ON


class PlayError(AssertionError):
    """An environment broke its contract; one line that says where and how."""


@dataclass
class Played:
    """What `play_random` saw.

    Attributes:
        num_steps: steps, of all lanes together.
        num_illegal: illegal actions that were tried.
        total_reward: sum of all rewards.
        metrics: of each episode that ended, in order.
        terminated: of each episode that ended, whether the agent ran it to its end (else a limit cut it short).
    """

    num_steps: int = 0
    num_illegal: int = 0
    total_reward: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)

    @property
    def num_episodes(self) -> int:
        """Episodes that ended."""
        return len(self.metrics)


def play_random(
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    *,
    seed: int,
    max_steps: int,
    check: bool = True,
    illegal_share: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> Played:
    """Play random legal actions, episode after episode, and check what must hold at every step.

    Checked: observations lie in their space; the mask allows something and is the same wherever it is reported; the
    engine's invariants hold (on a copy); rewards are finite; the clock moves by `dt_s` and never back; legal actions
    are carried out and illegal ones counted; a finished episode reports metrics that add up.

    Args:
        env: any variant of the environments, scalar or vector.
        seed: of the environment and of the actions.
        max_steps: steps to take (each of them moves every lane of a vector environment).
        check: whether to check at all.
        illegal_share: probability of an action that the mask forbids, where there is one.
        options: for every `reset` of a scalar environment, and the first of a vector one.

    Returns:
        What happened.

    Raises:
        PlayError: something does not hold.
        InvariantError: an invariant of the engine does not hold.

    Example:
        >>> import gymnasium as gym, infermax_gym
        >>> from infermax_gym.testing import play_random
        >>> env = gym.make("InferMax-v0", num_requests=5, max_decisions=50)
        >>> play_random(env, seed=0, max_steps=100).num_steps
        100
    """
    rng = np.random.default_rng(seed)
    if isinstance(env, VectorEnv):
        return _play_lanes(env, rng, seed, max_steps, check, illegal_share, options)
    return _play_one(env, rng, seed, max_steps, check, illegal_share, options)


KIND_SHARES = (0.6, 0.3, 0.1)
"""How often `random_legal` takes RUN, ADMIT and PREEMPT where all are legal: episodes get somewhere."""


def random_legal(
    mask: NDArray[Any], layout: ActionLayout, rng: np.random.Generator, *, illegal_share: float = 0.0
) -> int:
    """A random legal action: first its kind, see `KIND_SHARES`, then any target of that kind.

    Args:
        mask: (num_actions,), nonzero where an action is legal.
        layout: of the actions.
        rng: where the randomness comes from.
        illegal_share: probability of an action that the mask forbids instead, where there is one.
    """
    forbidden = np.flatnonzero(mask == 0)
    if illegal_share > 0.0 and forbidden.size and rng.random() < illegal_share:
        return int(rng.choice(forbidden))
    starts = [layout.encode(kind, 0) for kind in Kind]
    targets = [np.flatnonzero(part) for part in np.split(mask, starts[1:])]
    shares = np.array([share * (part.size > 0) for share, part in zip(KIND_SHARES, targets, strict=True)])
    kind = int(rng.choice(len(shares), p=shares / shares.sum()))
    return int(starts[kind] + rng.choice(targets[kind]))


def check_run(run: Run) -> None:
    """Check the engine's invariants on a copy of an episode's engine.

    Raises:
        InvariantError: names the number of the invariant and the figures.
    """
    engine = run.engine.copy()
    # A cap that was lowered while more requests ran only closes admission: what must hold is that all have a sequence.
    engine.record["max_num_seqs"] = engine.record["list_size"] - 1
    InvariantChecker(engine).check_now()


def _decides(run: Run) -> bool:
    """Whether there is something to decide: not where every request of an episode is rejected from the start."""
    return bool(run.lane.record["status"][0] == RUNNING_ON)


def _play_one(
    env: gym.Env[Any, Any],
    rng: np.random.Generator,
    seed: int,
    max_steps: int,
    check: bool,
    illegal_share: float,
    options: Mapping[str, Any] | None,
) -> Played:
    played = Played()
    bare: Any = env.unwrapped
    masked = isinstance(env.action_space, spaces.Discrete)
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed, options=None if options is None else dict(options))
    watch = _Watch(info)
    for step in range(max_steps):
        mask = bare.action_masks() if masked else None
        if check:
            watch.observation(step, observation, env.observation_space, mask)
            check_run(bare.run)
        if mask is None:
            action = env.action_space.sample()
        else:
            action = random_legal(mask, bare.layout, rng, illegal_share=illegal_share)
            watch.num_illegal += not mask[action] and _decides(bare.run)
        observation, reward, terminated, truncated, info = env.step(action)
        played.num_steps += 1
        played.total_reward += float(reward)
        if check:
            watch.step(step, float(reward), info)
        if terminated or truncated:
            if check:
                _require(bool(terminated or not truncated), step, "truncated, though every end is paid in full")
                watch.observation(step, observation, env.observation_space, bare.action_masks() if masked else None)
                watch.end(step, bool(terminated and not truncated), info.get("metrics"))
                check_run(bare.run)
            played.metrics.append(info.get("metrics", {}))
            played.terminated.append(bool(terminated and not truncated))
            played.num_illegal += watch.num_illegal
            observation, info = env.reset(options=None if options is None else dict(options))
            watch = _Watch(info)
    played.num_illegal += watch.num_illegal
    return played


def _play_lanes(
    env: VectorEnv[Any, Any, Any],
    rng: np.random.Generator,
    seed: int,
    max_steps: int,
    check: bool,
    illegal_share: float,
    options: Mapping[str, Any] | None,
) -> Played:
    played = Played()
    bare: Any = env.unwrapped
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed, options=None if options is None else dict(options))
    watches = [_Watch({"clock_s": clock_s}) for clock_s in info["clock_s"]]
    for step in range(max_steps):
        masks = bare.action_masks()
        if check:
            _require(env.observation_space.contains(observation), step, "an observation outside its space")
            for i, watch in enumerate(watches):
                watch.mask(step, masks[i])
                check_run(bare.runs[i])
        actions = np.array([random_legal(mask, bare.layout, rng, illegal_share=illegal_share) for mask in masks])
        for i, watch in enumerate(watches):
            watch.num_illegal += not masks[i][actions[i]] and _decides(bare.runs[i])
        observation, rewards, terminated, truncated, info = env.step(actions)
        played.num_steps += len(actions)
        played.total_reward += float(rewards.sum())
        for i in range(len(actions)):
            ended = bool(terminated[i] or truncated[i])
            here = {"dt_s": info["dt_s"][i], "clock_s": info["clock_s"][i]}
            if check and not ended:
                watches[i].step(step, float(rewards[i]), here)
            if not ended:
                continue
            metrics = info["final_info"]["metrics"][i]
            if check:
                _require(bool(info["_final_obs"][i] and info["_final_info"][i]), step, "an end without its final info")
                last = info["final_obs"][i]
                watches[i].observation(step, last, env.single_observation_space, None)
                watches[i].num_illegal = metrics["num_illegal"] if metrics else watches[i].num_illegal
                watches[i].end(step, bool(terminated[i]), metrics)
            played.metrics.append(metrics or {})
            played.terminated.append(bool(terminated[i] and not truncated[i]))
            played.num_illegal += watches[i].num_illegal
            watches[i] = _Watch({"clock_s": bare.runs[i].engine.record["clock_s"][0]})
    played.num_illegal += sum(watch.num_illegal for watch in watches)
    return played


class _Watch:
    """What is known of one episode so far."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.clock_s = float(info["clock_s"])
        self.num_illegal = 0

    def observation(
        self, step: int, observation: Any, space: spaces.Space[Any], mask: NDArray[np.bool_] | None
    ) -> None:
        _require(space.contains(observation), step, "the observation is outside its space")
        if mask is None:
            return
        self.mask(step, mask)
        if isinstance(observation, dict):
            _require(np.array_equal(observation["action_mask"], mask), step, "the observation has another mask")

    def mask(self, step: int, mask: NDArray[np.bool_]) -> None:
        _require(bool(mask.any()), step, "no action is legal")

    def step(self, step: int, reward: float, info: Mapping[str, Any]) -> None:
        _require(math.isfinite(reward), step, f"the reward is {reward}")
        dt_s, clock_s = float(info["dt_s"]), float(info["clock_s"])
        _require(dt_s >= 0.0 and math.isfinite(clock_s), step, f"dt_s is {dt_s}, the clock {clock_s}")
        close = math.isclose(self.clock_s + dt_s, clock_s, rel_tol=1e-9, abs_tol=1e-9)
        _require(close, step, f"{dt_s} s after {self.clock_s} s the clock is {clock_s} s")
        illegal = info.get("num_illegal", self.num_illegal)
        _require(illegal == self.num_illegal, step, f"{illegal} actions counted illegal, {self.num_illegal} were")
        self.clock_s = clock_s

    def end(self, step: int, terminated: bool, metrics: Mapping[str, Any] | None) -> None:
        if metrics is None:
            raise PlayError(f"step {step}: the episode ended without metrics")
        done = metrics["num_finished"] + metrics["num_rejected"]
        total = metrics["num_requests"]
        _require(done <= total, step, f"{done} requests are done of {total}")
        _require(not terminated or done == total, step, f"terminated with {done} of {total} requests done")
        illegal = metrics.get("num_illegal", self.num_illegal)
        _require(illegal == self.num_illegal, step, f"{illegal} actions counted illegal, {self.num_illegal} were")


def _require(condition: bool, step: int, what: str) -> None:
    if not condition:
        raise PlayError(f"step {step}: {what}")
