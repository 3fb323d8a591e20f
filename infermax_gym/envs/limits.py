"""`max_episode_steps`, in every form a limit of the environment's own.

Gymnasium's `make` keeps the number to itself and lets a wrapper cut episodes from outside, where nobody pays for what
is left. So an environment that `make` builds looks there for it: its own limit then ends the episode at the same step,
paid in full, and the wrapper has nothing left to cut.
"""

from __future__ import annotations

import sys
from typing import Any

from gymnasium.envs import registration

from infermax_gym.envs.settings import size

_STEPS = size(1, optional=True)


def limit_of_make(env: Any) -> int | None:
    """The `max_episode_steps` of the `gymnasium.make` that is building an environment just now; None without.

    Args:
        env: the environment, in its constructor.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_locals.get("self") is env:
        frame = frame.f_back
    if frame.f_code is not getattr(registration.make, "__code__", None):
        return None
    given = frame.f_locals.get("max_episode_steps")
    if given is None:
        given = getattr(frame.f_locals.get("env_spec"), "max_episode_steps", None)
    return given  # type: ignore[no-any-return]


def with_limit(config: Any, max_episode_steps: int | None) -> Any:
    """A configuration under a limit on decisions that may be tighter than its own.

    Args:
        config: an `EnvConfig` or a `RouterEnvConfig`.
        max_episode_steps: decisions; None or -1 for no further limit, as Gymnasium has it.

    Raises:
        SettingError: it is no such number.
    """
    if max_episode_steps == -1:
        return config
    most = _STEPS("max_episode_steps", max_episode_steps)
    if most is None:
        return config
    own = config.max_decisions
    return config.changed(max_decisions=most if own is None else min(own, most))
