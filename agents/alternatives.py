"""Worked alternatives: stable-baselines3's own algorithms on the environments, nothing changed in them.

    sac         SAC on InferMaxKnobs-v0: continuous knobs every five seconds
    ppo-knobs   PPO on InferMaxKnobs-v0
    dqn         DQN on InferMax-v0, flat observations; playing, it takes the best legal action

They show how an algorithm of one's own plugs in. Control intervals of the knobs are equally long, so a constant
discount is right there; DQN discounts by decision, which is wrong for decisions of unequal length (see
`infermax_gym.agents.buffers`), and it learns the values of illegal actions, which the environment replaces, like those
of others.
"""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

from infermax_gym.agents.agent import AgentError
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.agents.storage import write_bytes
from infermax_gym.engine import EngineConfig, Information, SimulationResult
from infermax_gym.engine.recorder import result_of
from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

ALTERNATIVES = ("sac", "ppo-knobs", "dqn")
INTERVAL_S, TAU_S = 5.0, 20.0
REWARD_SCALE = 1.0 / 100.0

Report = Callable[[dict[str, float]], None]


def make_env(algo: str, config: EnvConfig) -> Any:
    """The environment that an alternative learns in.

    Raises:
        ValueError: there is no such alternative.
    """
    if algo not in ALTERNATIVES:
        raise ValueError(f"unknown alternative {algo!r}; known: {', '.join(ALTERNATIVES)}")
    return InferMaxEnv(config, flat=True) if algo == "dqn" else InferMaxKnobsEnv(config, interval_s=INTERVAL_S)


def make_model(algo: str, config: EnvConfig, *, seed: int, tensorboard: str | None = None) -> Any:
    """An untrained model of stable-baselines3 on its environment."""
    env = gym.wrappers.TransformReward(Monitor(make_env(algo, config)), lambda reward: REWARD_SCALE * float(reward))
    common: dict[str, Any] = {
        "seed": int(stream(seed, "policy").integers(2**31)),
        "device": "cpu",
        "tensorboard_log": tensorboard,
        "policy_kwargs": {"net_arch": [64, 64]},
    }
    if algo == "dqn":
        return DQN("MlpPolicy", env, gamma=0.99, learning_starts=500, exploration_fraction=0.5, train_freq=8, **common)
    gamma = math.exp(-INTERVAL_S / TAU_S)
    if algo == "sac":
        return SAC("MlpPolicy", env, gamma=gamma, learning_starts=200, buffer_size=50_000, train_freq=2, **common)
    return PPO("MlpPolicy", env, gamma=gamma, n_steps=256, batch_size=64, **common)


@dataclass(frozen=True, eq=False)
class EnvPlayer:
    """A model of stable-baselines3 that serves whole workloads through its environment, greedily.

    Attributes:
        algo: one of `ALTERNATIVES`.
        model: the model.
        config: of its environment; the replica comes from whoever asks.
    """

    algo: str
    model: Any
    config: EnvConfig
    information: Information = Information.NONE

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; schedules are not recorded here."""
        config = self.config.changed(
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
            block_size=engine.block_size,
        )
        env = make_env(self.algo, config)
        pinned = {"workload": workload, "start": 0, "num_requests": len(workload), "backlog": 0, "time_scale": 1.0}
        pinned |= {"num_kv_tokens": engine.num_kv_tokens, "cost": engine.cost}
        observation, _ = env.reset(seed=seed, options=pinned)
        left = 1_000 + 20 * len(workload)
        done = False
        while not done:
            observation, _, terminated, truncated, _ = env.step(self._action(env, observation) if left > 0 else -1)
            left -= self.algo == "dqn"
            done = terminated or truncated
        env.run.recorder.empty(env.run.engine)
        return result_of(env.run.engine, workload, env.run.recorder, record_schedule)

    def _action(self, env: Any, observation: Any) -> Any:
        if self.algo != "dqn":
            return self.model.predict(observation, deterministic=True)[0]
        with torch.no_grad():
            values = self.model.q_net(torch.from_numpy(observation[None]))[0].numpy()
        return int(np.where(env.action_masks(), values, -np.inf).argmax())


class _EvaluateAndStop(BaseCallback):
    """Plays the validation slices now and then, keeps the best model on disk, and ends on time or without progress."""

    def __init__(
        self, player: EnvPlayer, trace_slices: Sequence[TraceSlice], folder: Path, every: int, minutes: float | None,
        patience: int | None, report: Report,
    ) -> None:  # fmt: skip
        super().__init__()
        self.player, self.trace_slices, self.folder, self.every = player, trace_slices, folder, every
        self.minutes, self.patience, self.report = minutes, patience, report
        self.best, self.since_best = math.inf, 0
        self.best_parameters: dict[str, Any] | None = None
        self.began = time.monotonic()

    def _on_step(self) -> bool:
        if self.n_calls % self.every == 0:
            self.evaluate()
        over = self.minutes is not None and time.monotonic() - self.began > 60.0 * self.minutes
        return not (over or (self.patience is not None and self.since_best >= self.patience))

    def evaluate(self) -> None:
        """Score the model; save it if it is the best so far (the file takes its place once it is complete)."""
        results = [self.player.play(trace_slice.workload, trace_slice.engine) for trace_slice in self.trace_slices]
        loss = float(np.mean([np.log(np.nanmean(result.latency_s)) for result in results]))
        self.since_best += 1
        if loss < self.best:
            self.best, self.since_best = loss, 0
            self.best_parameters = copy.deepcopy(self.model.get_parameters())
            archive = io.BytesIO()
            self.model.save(archive)
            write_bytes(self.folder / "model.zip", archive.getvalue())
        self.logger.record("eval/latency_s", math.exp(loss))
        elapsed_s = time.monotonic() - self.began
        self.report({"step": float(self.num_timesteps), "elapsed_s": elapsed_s, "loss": math.exp(loss)})


def train_alternative(
    algo: str,
    config: EnvConfig,
    validation: Sequence[TraceSlice],
    folder: Path,
    *,
    seed: int = 0,
    num_decisions: int | None = None,
    minutes: float | None = None,
    every: int = 1_000,
    patience: int | None = None,
    tensorboard: str | None = None,
    report: Report = lambda point: None,
) -> EnvPlayer:
    """Train an alternative; returns the model that did best on the validation trace slices.

    Args:
        algo: one of `ALTERNATIVES`.
        config: where episodes come from.
        validation: trace slices that decide which model is kept.
        folder: gets model.zip, an archive of stable-baselines3 (reading it runs code from it).
        seed: of weights, exploration and episodes.
        num_decisions: stop after so many decisions ...
        minutes: ... or so much time.
        every: decisions between two evaluations.
        patience: stop after so many evaluations without a better one; None: never.
        tensorboard: folder of logs, or None.
        report: gets the points of the learning curve.

    Raises:
        ValueError: neither `num_decisions` nor `minutes`.
        AgentError: the model was never evaluated.
    """
    if num_decisions is None and minutes is None:
        raise ValueError("say how long to train: num_decisions or minutes")
    model = make_model(algo, config, seed=seed, tensorboard=tensorboard)
    player = EnvPlayer(algo, model, config)
    callback = _EvaluateAndStop(player, validation, folder, every, minutes, patience, report)
    try:
        model.learn(num_decisions or 10**9, callback)
        callback.evaluate()
    except KeyboardInterrupt:
        pass
    if callback.best_parameters is None:
        raise AgentError(f"{folder}: training ended before the first evaluation")
    model.set_parameters(callback.best_parameters, device="cpu")  # an archive would run code when it is read
    return player
