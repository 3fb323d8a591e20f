"""Gymnasium ids of the tasks; nothing heavy is imported before an environment is made."""

from __future__ import annotations

import gymnasium as gym

from infermax_gym.envs import ENTRY_POINTS
from infermax_gym.suite.tasks import SUITES, Task


def register_suite() -> None:
    """Register every task of every version; calling it again changes nothing."""
    for tasks in SUITES.values():
        for task in tasks:
            if task.id not in gym.registry:
                _register(task)


def _register(task: Task) -> None:
    if len(task.train) > 1:
        gym.register(task.id, entry_point="infermax_gym.suite.env:TaskEnv", kwargs={"task": task.id})
        return
    scalar, vector = ENTRY_POINTS[task.environment]
    settings = {**task.settings, **task.options(task.train[0])}
    gym.register(task.id, entry_point=scalar, vector_entry_point=vector, kwargs=settings)
