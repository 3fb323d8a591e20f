"""What other installed packages add: policies, routers, workloads and costs, by entry points.

A package declares them in its pyproject.toml, one line each; the name is the one that commands take:

    [project.entry-points."infermax_gym.policies"]
    my-policy = "my_package.schedulers:MyPolicy"

- `infermax_gym.policies`: a `Policy`, a scheduler written in Python (`Scheduler`) or a `Player`; a class of either of
  the last two is called without arguments.
- `infermax_gym.routers`: a `Router`, or a router written in Python (`PythonRouter`), or a class of one.
- `infermax_gym.workloads`: a `WorkloadPreset`, or a function that reads a trace file: path to `Workload`.
- `infermax_gym.costs`: a `CostModel`.

Nothing is imported before somebody asks for it by name, or for all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal["policies", "routers", "workloads", "costs"]

GROUPS: dict[Kind, str] = {
    "policies": "infermax_gym.policies",
    "routers": "infermax_gym.routers",
    "workloads": "infermax_gym.workloads",
    "costs": "infermax_gym.costs",
}
"""What can be added, and the entry-point group that adds it."""

_EXPECTED: dict[Kind, str] = {
    "policies": "a Policy, or an object or class with `name`, `information` and `decide(view)`, or with `information` "
    "and `play(workload, engine, ...)`",
    "routers": "a Router, or an object or class with `name` and `choose(arrival)`",
    "workloads": "a WorkloadPreset, or a function from a path to a Workload",
    "costs": "a CostModel",
}


class PluginError(ValueError):
    """What a name or an entry point refers to cannot be used; one line that says why."""


@dataclass(frozen=True)
class Plugin:
    """Something that another package adds, not loaded yet.

    Attributes:
        kind: what it is.
        name: what commands call it.
        distribution: the package that it comes from.
        reference: where it is, as module:name.
    """

    kind: Kind
    name: str
    distribution: str
    reference: str

    def load(self) -> Any:
        """Import it.

        Raises:
            PluginError: it cannot be imported, is something else, or calls itself by another name.
        """
        where = f"{self.name!r} of the package {self.distribution!r} ({GROUPS[self.kind]})"
        try:
            found = load_object(self.reference, self.kind)
        except PluginError as error:
            raise PluginError(f"{where}: {error}") from None
        own = getattr(found, "name", self.name)
        if own != self.name:
            raise PluginError(f"{where}: calls itself {own!r}; entry point and object must have the same name")
        return found


def find_plugins(kind: Kind, built_in: Collection[str] = ()) -> tuple[dict[str, Plugin], dict[str, str]]:
    """What is added, without importing any of it.

    Args:
        kind: what is looked for.
        built_in: names that are taken.

    Returns:
        The plug-ins by name; and by name what is wrong with those left out, in one line: a name of ours stays ours,
        and one that two packages claim is neither's.
    """
    claims: dict[str, list[Plugin]] = {}
    for entry in entry_points(group=GROUPS[kind]):
        plugin = Plugin(kind, entry.name, _distribution_of(entry), entry.value)
        claims.setdefault(entry.name, []).append(plugin)
    found, wrong = {}, {}
    for name, plugins in sorted(claims.items()):
        packages = sorted({plugin.distribution for plugin in plugins})
        if name in built_in:
            wrong[name] = f"{name!r} of the package {packages[0]!r} ({GROUPS[kind]}) is a name of infermax-gym itself"
        elif len(plugins) > 1:
            wrong[name] = f"{name!r} ({GROUPS[kind]}) is claimed more than once, by {' and '.join(packages)}"
        else:
            found[name] = plugins[0]
    return found, wrong


def load_object(reference: str, kind: Kind) -> Any:
    """Import what `module:name` refers to; a class of policies or routers is called without arguments.

    Raises:
        PluginError: there is no such thing, or it is of no use as this kind.
    """
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise PluginError(f"{reference!r} does not say where it is; expected module:name")
    try:
        found: Any = import_module(module_name)
    except Exception as error:  # whatever somebody's module does when it is imported
        raise PluginError(f"cannot import {module_name!r}: {in_one_line(error)}") from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise PluginError(f"{module_name!r} has no {path!r}")
        found = getattr(found, part)
    if isinstance(found, type) and kind in ("policies", "routers"):
        try:
            found = found()
        except Exception as error:
            raise PluginError(f"{reference} cannot be made without arguments: {in_one_line(error)}") from None
    if not _is_a(found, kind):
        raise PluginError(f"{reference} is {type(found).__name__!r}; expected {_EXPECTED[kind]}")
    return found


def in_one_line(error: BaseException) -> str:
    """An exception and what it says, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _is_a(found: Any, kind: Kind) -> bool:
    if kind == "costs":
        from infermax_gym.cost import CostModel

        return isinstance(found, CostModel)
    if kind == "workloads":
        from infermax_gym.workload import WorkloadPreset

        return isinstance(found, WorkloadPreset) or callable(found)
    if kind == "routers":
        from infermax_gym.cluster import PythonRouter, Router

        return isinstance(found, (Router, PythonRouter))
    from infermax_gym.engine import Information, Player, Policy, Scheduler

    decides = isinstance(found, (Scheduler, Player)) and isinstance(found.information, Information)
    return isinstance(found, Policy) or decides


def _distribution_of(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else str(entry.dist.name)
