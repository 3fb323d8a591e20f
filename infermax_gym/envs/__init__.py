"""Gymnasium environments over the engine, three of one anatomy.

`scheduling` is `InferMax-v0` (admit, preempt, run), `knobs` is `InferMaxKnobs-v0` (settings of the scheduling algorithm
for the next control interval), `routing` is `InferMaxRouter-v0` (which replica gets a request). Each of them has `env`
(the contract), `config` (what an episode is drawn from), `layout` (order of actions and features), `step` (the compiled
entry: an action, and on to the next decision), `observe` (what the agent sees), `teacher` (a policy as an agent) and,
where many lanes step, `vector`. Shared: `scalar` and `native` (what scalar and vector environments have in common),
`rewards`, `fallback` (who serves the rest after a limit), `limits` (`max_episode_steps`), `settings` (as people type
them), `draws` (chance), `guards` (what callers hand in), `rendering` and `paint` (what `render` shows), `wrappers`
(simulated time for libraries), `status`, `scales`.

The public names of all of them can be imported from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from infermax_gym.envs.knobs.env import InferMaxKnobsEnv as InferMaxKnobsEnv
    from infermax_gym.envs.knobs.teacher import KnobsTeacher as KnobsTeacher
    from infermax_gym.envs.knobs.vector import InferMaxKnobsVectorEnv as InferMaxKnobsVectorEnv
    from infermax_gym.envs.rewards import REWARDS as REWARDS
    from infermax_gym.envs.rewards import Reward as Reward
    from infermax_gym.envs.rewards import mix as mix
    from infermax_gym.envs.routing.config import RouterEnvConfig as RouterEnvConfig
    from infermax_gym.envs.routing.env import InferMaxRouterEnv as InferMaxRouterEnv
    from infermax_gym.envs.routing.teacher import RouterTeacher as RouterTeacher
    from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv as InferMaxRouterVectorEnv
    from infermax_gym.envs.scheduling.config import EnvConfig as EnvConfig
    from infermax_gym.envs.scheduling.env import InferMaxEnv as InferMaxEnv
    from infermax_gym.envs.scheduling.layout import ActionLayout as ActionLayout
    from infermax_gym.envs.scheduling.layout import Kind as Kind
    from infermax_gym.envs.scheduling.teacher import PolicyTeacher as PolicyTeacher
    from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv as InferMaxVectorEnv
    from infermax_gym.envs.settings import SettingError as SettingError
    from infermax_gym.envs.wrappers import TimeDiscount as TimeDiscount
    from infermax_gym.envs.wrappers import TimeDiscountVector as TimeDiscountVector

_MODULES = {
    "ActionLayout": "scheduling.layout",
    "EnvConfig": "scheduling.config",
    "InferMaxEnv": "scheduling.env",
    "InferMaxKnobsEnv": "knobs.env",
    "InferMaxKnobsVectorEnv": "knobs.vector",
    "InferMaxRouterEnv": "routing.env",
    "InferMaxRouterVectorEnv": "routing.vector",
    "InferMaxVectorEnv": "scheduling.vector",
    "Kind": "scheduling.layout",
    "KnobsTeacher": "knobs.teacher",
    "PolicyTeacher": "scheduling.teacher",
    "REWARDS": "rewards",
    "Reward": "rewards",
    "RouterEnvConfig": "routing.config",
    "RouterTeacher": "routing.teacher",
    "SettingError": "settings",
    "TimeDiscount": "wrappers",
    "TimeDiscountVector": "wrappers",
    "mix": "rewards",
}

_CONSTANTS = ("ENTRY_POINTS", "TASKS", "TEST_SEEDS", "TRAIN_SEEDS", "VALIDATION_SEEDS", "VARIANTS")
__all__ = sorted([*_MODULES, *_CONSTANTS, "register_envs"])

ENTRY_POINTS = {
    "InferMax-v0": (
        "infermax_gym.envs.scheduling.env:InferMaxEnv",
        "infermax_gym.envs.scheduling.vector:InferMaxVectorEnv",
    ),
    "InferMaxKnobs-v0": (
        "infermax_gym.envs.knobs.env:InferMaxKnobsEnv",
        "infermax_gym.envs.knobs.vector:InferMaxKnobsVectorEnv",
    ),
    "InferMaxRouter-v0": (
        "infermax_gym.envs.routing.env:InferMaxRouterEnv",
        "infermax_gym.envs.routing.vector:InferMaxRouterVectorEnv",
    ),
}
"""Environment ids and where they are: (scalar, vector)."""


DEFAULT_LIMITS = {"max_decisions_per_request": 60}
"""Settings that the ids are registered with, so that every episode of an untrained agent ends; good agents need about
five decisions per request, a scheduler that is asked after every iteration about twenty."""


TASKS: dict[str, dict[str, Any]] = {
    "InferMaxLongContext-v0": {
        "workloads": "mooncake-conversation",
        "num_requests": 40,
        "backlog": 10,
        "time_scale": 0.05,
        "costs": "llama-3.1-8b@h200",
        "num_kv_tokens": 400_000,
        "max_num_batched_tokens": 8_192,
        "num_waiting_slots": 4,
        "num_running_slots": 2,
        "level_shares": 1.0,
        "decide": "change",
        "preempt": "forced",
        "max_decisions_per_request": 60,
    },
}
"""Ids of `InferMaxEnv` with settings of their own, made for learning: docs/environments.md, "A task that teaches"."""


VARIANTS: dict[str, dict[str, Any]] = {
    "preempt-any": {"preempt": "any"},
    "decide-event": {"decide": "event"},
    "many-slots": {"num_waiting_slots": 16, "num_running_slots": 16},
    "two-chunk-budgets": {"level_shares": (0.25, 1.0)},
    "noisy-lengths": {"information": "noisy"},
}
"""Settings that change one thing of `InferMaxLongContext-v0`, by name: `gym.make(id, **VARIANTS["noisy-lengths"])`."""


TRAIN_SEEDS = range(10_000)
"""Seeds of `reset` and of lanes to train on."""

VALIDATION_SEEDS = range(10_000, 10_050)
"""Seeds to choose settings and checkpoints on."""

TEST_SEEDS = range(20_000, 20_050)
"""Seeds of the reference scores: train and choose on others."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


def register_envs() -> None:
    """Register every environment with Gymnasium; calling it again changes nothing."""
    for name, (scalar, vector) in ENTRY_POINTS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=scalar, vector_entry_point=vector, kwargs=dict(DEFAULT_LIMITS))
    scalar, vector = ENTRY_POINTS["InferMax-v0"]
    for name, settings in TASKS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=scalar, vector_entry_point=vector, kwargs=dict(settings))
