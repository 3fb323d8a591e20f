"""Gymnasium environments over the engine.

Reading order: `env` (the contract of `InferMax-v0`), `layout` (actions and features), `config` and `episode` (what
an episode is drawn from), `rewards`, `vector` (many lanes in one call), `knobs` (`InferMaxKnobs-v0`), `teacher` (a
policy as an agent); then the compiled side: `lane`, `windows`, `kernel`, `observe`. `InferMaxRouter-v0`
is a package of its own, `routing`.
"""

from __future__ import annotations

import gymnasium as gym

ENTRY_POINTS = {
    "InferMax-v0": ("infermax_gym.envs.env:InferMaxEnv", "infermax_gym.envs.vector:InferMaxVectorEnv"),
    "InferMaxKnobs-v0": ("infermax_gym.envs.knobs:InferMaxKnobsEnv", None),
    "InferMaxRouter-v0": (
        "infermax_gym.envs.routing.env:InferMaxRouterEnv",
        "infermax_gym.envs.routing.vector:InferMaxRouterVectorEnv",
    ),
}
"""Environment ids and where they are: (scalar, vector)."""


def register_envs() -> None:
    """Register every environment with Gymnasium; calling it again changes nothing."""
    for name, (scalar, vector) in ENTRY_POINTS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=scalar, vector_entry_point=vector)
