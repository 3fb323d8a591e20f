"""Checks at every entry of compiled code: nothing a caller hands in reaches memory that is not its own."""

from __future__ import annotations

import operator
from threading import RLock
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray


class Turnstile:
    """Lets one thread at a time through an environment; copies and pickles get one of their own."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turnstile, ()


def whole_action(action: Any) -> int:
    """An action as a number.

    Raises:
        ValueError: it is no whole number.
    """
    try:
        number = operator.index(action.item() if isinstance(action, np.ndarray) and action.size == 1 else action)
    except TypeError:
        raise ValueError(f"an action is a whole number, got {action!r}") from None
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"an action is a whole number of 64 bits, got {action!r}")
    return number


def whole_actions(actions: Any, num_lanes: int) -> NDArray[np.int64]:
    """(n,) int64: an action for each lane.

    Raises:
        ValueError: another shape, or numbers that are not whole.
    """
    try:
        given = np.asarray(actions)
    except ValueError:
        raise ValueError(f"actions must have shape ({num_lanes},), got {actions!r}") from None
    if given.shape != (num_lanes,):
        raise ValueError(f"actions must have shape ({num_lanes},), got {given.shape}")
    if given.dtype.kind == "O":
        return np.array([whole_action(action) for action in given], np.int64)
    if given.dtype.kind not in "iub":
        raise ValueError(f"actions are whole numbers, got numbers of type {given.dtype}")
    if given.dtype == np.uint64 and given.size and given.max() >= 2**63:
        raise ValueError("actions are whole numbers of 64 bits")
    return np.ascontiguousarray(given, np.int64)


def check_open(closed: bool) -> None:
    """Nothing can be done with an environment that is closed.

    Raises:
        gymnasium.error.ClosedEnvironmentError: it is.
    """
    if closed:
        raise gym.error.ClosedEnvironmentError("the environment is closed; make another one")


def check_state(state: Any, kind: type, interface: tuple[Any, ...]) -> None:
    """A state can be set only where its memory has the same layout.

    Raises:
        ValueError: it is no state of such an environment.
    """
    if not isinstance(state, kind):
        raise ValueError(f"a state is what get_state() returned, got {type(state).__name__}")
    theirs = getattr(state, "interface", None)
    if theirs != interface:
        raise ValueError(f"the state belongs to an environment of another layout: {theirs}, here {interface}")
