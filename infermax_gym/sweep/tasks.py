"""A scenario as a task: what to run, on which shared data, and a key that says what it is."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infermax_gym import __version__

_PACKAGE = Path(__file__).resolve().parent.parent
_NO_RESULT = ("cli", "viewer", "vllm", "profiler", "sweep")  # parts that no figure of a scenario depends on


@dataclass(frozen=True)
class Shared:
    """Data that several tasks read, such as a workload: made once per process, or once per cluster.

    Attributes:
        key: equal for equal data.
        recipe: what `Work.load` makes it from; can be pickled.
    """

    key: str
    recipe: Any


@dataclass(frozen=True)
class Task:
    """One scenario.

    Attributes:
        key: see `key_of`.
        argument: what `Work.run` gets; can be pickled.
        shared: what it gets besides.
    """

    key: str
    argument: Any
    shared: Shared


@dataclass(frozen=True)
class Work:
    """What is done with tasks: two functions at the top level of modules, so that other processes find them.

    Attributes:
        load: from a recipe to shared data.
        run: from an argument and shared data to a result.
    """

    load: Callable[[Any], Any]
    run: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        task: the task.
        value: what it returned; None if it failed.
        error: why it failed, in a line; None if it did not.
        num_attempts: how often it was begun; more than once where its process died.
        wall_s: seconds of the last attempt, loading included.
    """

    task: Task
    value: Any
    error: str | None
    num_attempts: int
    wall_s: float


Execute = Callable[[Work, Iterable[Task]], Iterator[Outcome]]
"""Runs tasks in any order and hands out each outcome as it comes; closing it ends what runs."""

MAX_ATTEMPTS = 3
"""Of a task whose process dies each time."""


def attempt(work: Work, task: Task, shared: Callable[[], Any]) -> tuple[Any, str | None, float]:
    """Run a task here: its value, or the reason in one line why it has none, and the seconds it took."""
    start = time.perf_counter()
    try:
        value, error = work.run(task.argument, shared()), None
    except Exception as fault:
        value, error = None, " ".join(f"{type(fault).__name__}: {fault}".split())[:500]
    return value, error, time.perf_counter() - start


def key_of(description: Mapping[str, Any]) -> str:
    """The key of a scenario: 32 hexadecimal digits of the SHA-256 of everything its figures depend on.

    Args:
        description: as plain JSON values; the version of this package and its code are added.
    """
    whole = {"version": __version__, "code": code_digest(), **description}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


@cache
def code_digest() -> str:
    """SHA-256 over the sources that a figure can depend on, so that an edit is a new scenario."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        inside = path.relative_to(_PACKAGE)
        if inside.parts[0] not in _NO_RESULT:
            digest.update(f"{inside.as_posix()} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    for part in ("agents", "baselines"):  # links are not followed above, folders of a wheel are
        folder = _PACKAGE / part
        for path in sorted(folder.rglob("*.py")) if folder.is_symlink() else ():
            digest.update(f"{part}/{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
