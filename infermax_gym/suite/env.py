"""The environment of tasks that mix engines or traffic, and one that keeps its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import SimulationResult
from infermax_gym.engine.recorder import result_of
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.episode import Run, begin_run, draw_episode, settle
from infermax_gym.envs.scheduling.step import start
from infermax_gym.suite.tasks import SuiteError, Task, task_of


class TaskEnv(gym.Wrapper[Any, Any, Any, Any]):
    """`InferMax-v0` whose episodes are of the variants of a task: each has one engine with its traffic and load.

    A reset draws a variant, from its seed if it has one; options are those of `InferMaxEnv` and come on top.

    Args:
        task: its id.
        split: "train" draws from the variants to train on, "test" from those of the test episodes.
        **settings: settings of `InferMaxEnv` to change, such as `flat=True` or `reward`.

    Raises:
        SuiteError: there is no such task or split.
    """

    def __init__(self, task: str, split: str = "train", **settings: Any) -> None:
        self.task: Task = task_of(task)
        if split not in ("train", "test"):
            raise SuiteError(f"{self.task.id}: split must be 'train' or 'test', got {split!r}")
        self._variants = self.task.train if split == "train" else self.task.test
        self._draws = np.random.default_rng()
        super().__init__(InferMaxEnv(**{**self.task.settings, **self.task.options(self._variants[0]), **settings}))

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a variant and an episode of it."""
        if seed is not None:
            self._draws = np.random.default_rng(seed)
        variant = self._variants[int(self._draws.integers(len(self._variants)))]
        return self.env.reset(seed=seed, options={**self.task.options(variant), **(options or {})})

    def action_masks(self) -> NDArray[np.bool_]:
        """(A,) bool, where the action is legal."""
        inner = self.env
        assert isinstance(inner, InferMaxEnv)
        return inner.action_masks()


class RecordingEnv(InferMaxEnv):
    """`InferMax-v0` that keeps the schedule of an episode."""

    def _begin(self, streams: Streams, options: Mapping[str, Any] | None) -> Run:
        run = begin_run(self.config, draw_episode(self.config, streams, options), record_schedule=True)
        start(run.engine.core, run.lane.core)
        settle(run)
        return run

    def result(self) -> SimulationResult:
        """The records of the episode so far, with its schedule."""
        run = self.run
        run.recorder.empty(run.engine)
        return result_of(run.engine, run.episode.workload, run.recorder.copy(), True)
