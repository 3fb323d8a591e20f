"""What is not in the tables: `module:name` as somebody types it, and what installed packages add."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError, unknown
from infermax_gym.plugins import Kind, PluginError, find_plugins, in_one_line, load_object

if TYPE_CHECKING:
    from infermax_gym.engine import (
        Decision,
        EngineConfig,
        Information,
        OnlineView,
        Scheduler,
        SimulationResult,
    )
    from infermax_gym.workload import Workload

_SINGULAR: dict[Kind, str] = {
    "policies": "policy", "routers": "router", "workloads": "workload", "costs": "cost model"
}  # fmt: skip


def look_up(kind: Kind, name: str, table: Mapping[str, Any]) -> Any:
    """Something by its name: of the table, of an installed package, or `module:name`.

    Args:
        kind: what is looked for.
        name: what was typed.
        table: ours, by name.

    Raises:
        InputError: nothing has this name, or what has it cannot be used.
    """
    found, wrong = find_plugins(kind, table)
    if name in table:
        if name in wrong:
            output.warn(f"{wrong[name]}, which is used")
        return table[name]
    if name in wrong:
        raise InputError(wrong[name])
    try:
        if name in found:
            return _named(kind, name, found[name].load(), found[name].reference)
        if ":" in name and kind in ("policies", "routers"):
            return _named(kind, name, _from_here(name, kind), name)
    except PluginError as error:
        raise InputError(f"{_SINGULAR[kind]} {error}") from None
    raise unknown(_SINGULAR[kind], name, [*table, *found], f"infermax list {kind}")


def added(kind: Kind, table: Collection[str]) -> dict[str, tuple[str, Any]]:
    """All that installed packages add, by name, with the package; what cannot be used is warned of and left out."""
    found, wrong = find_plugins(kind, table)
    loaded = {}
    for name, plugin in found.items():
        try:
            loaded[name] = plugin.distribution, _named(kind, name, plugin.load(), plugin.reference)
        except PluginError as error:
            wrong[name] = str(error)
    for message in wrong.values():
        output.warn(f"{message}; left out")
    return loaded


def _named(kind: Kind, name: str, found: Any, reference: str) -> Any:
    """Under the name that was typed; a scheduler written in Python begins each run anew."""
    from infermax_gym.engine import Player, Policy

    if kind != "policies" or isinstance(found, Player):
        return found
    if isinstance(found, Policy):
        return replace(found, name=name)
    return _OwnScheduler(name, found.information, lambda: load_object(reference, kind), found)


def _from_here(reference: str, kind: Kind) -> Any:
    """What `module:name` refers to, the folder where the command runs looked through first."""
    search_here()
    return load_object(reference, kind)


def search_here() -> None:
    """Have imports look through the folder where the command runs, first."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


@dataclass(frozen=True, eq=False)
class _OwnScheduler:
    """A scheduler written in Python as a contender: a new one for each run, and its faults in one line.

    Attributes:
        name: what was typed.
        information: what it knows about output lengths.
        make: a new one.
        example: one of them, for what it says of itself.
    """

    name: str
    information: Information
    make: Callable[[], Scheduler]
    example: Scheduler

    @property
    def source(self) -> str:
        """Paper or code it follows."""
        return str(getattr(self.example, "source", ""))

    @property
    def note(self) -> str:
        """One line, good and bad at."""
        return str(getattr(self.example, "note", ""))

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end.

        Raises:
            SchedulerError: it raised something, or answered what cannot be carried out.
        """
        from infermax_gym.engine import simulate

        return simulate(workload, engine, _Guarded(self.name, self.make()), record_schedule=record_schedule)


@dataclass(frozen=True, eq=False)
class _Guarded:
    """A scheduler whose exceptions say where they come from, in one line."""

    name: str
    inner: Scheduler

    @property
    def information(self) -> Information:
        return self.inner.information

    def decide(self, view: OnlineView) -> Decision:
        from infermax_gym.engine import SchedulerError

        try:
            return self.inner.decide(view)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            raise SchedulerError(f"scheduler {self.name!r}: decide raised {in_one_line(error)} ({where})") from error
