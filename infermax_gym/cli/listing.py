"""`infermax list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

from infermax_gym.cli import options, output
from infermax_gym.cli.errors import InputError

Rows = list[dict[str, Any]]


def list_names(
    kind: Annotated[str, typer.Argument(metavar="policies|routers|costs|workloads|envs|agents", show_default=False)],
    json: options.Json = False,
) -> None:
    """Show the names that other commands take."""
    if kind not in _LISTS:
        raise InputError(f"cannot list {kind!r}; expected one of {', '.join(_LISTS)}")
    rows = _LISTS[kind]()
    if json:
        print(output.to_json({"schema": 1, kind: rows}))
    else:
        _print_table(kind, rows)


def _policies() -> Rows:
    from infermax_gym.baselines.catalogue import SCHEDULERS
    from infermax_gym.evaluation import information_of

    return [
        {"name": name, "information": information_of(policy), "note": policy.note, "source": policy.source}
        for name, policy in SCHEDULERS.items()
    ]


def _routers() -> Rows:
    from infermax_gym.baselines.routers import ROUTERS

    return [
        {"name": name, "information": row.information.name.lower(), "note": row.note, "source": row.source}
        for name, row in ROUTERS.items()
    ]


def _costs() -> Rows:
    from infermax_gym.cost import COSTS

    return [{"name": name, "num_devices": model.num_devices, "source": model.source} for name, model in COSTS.items()]


def _workloads() -> Rows:
    from infermax_gym.workload import PRESETS

    return [{"name": name, "note": preset.note} for name, preset in PRESETS.items()]


def _envs() -> Rows:
    import gymnasium

    import infermax_gym  # noqa: F401 - registers them

    specs = [spec for name, spec in gymnasium.registry.items() if name.startswith("InferMax")]
    return [{"name": spec.id, "entry_point": str(spec.entry_point)} for spec in specs]


def _agents() -> Rows:
    try:
        rows: Rows = import_module("infermax_gym.agents").list_agents()
    except (ImportError, AttributeError):
        return []
    return rows


_LISTS: dict[str, Callable[[], Rows]] = {
    "policies": _policies,
    "routers": _routers,
    "costs": _costs,
    "workloads": _workloads,
    "envs": _envs,
    "agents": _agents,
}


_HEADERS = {"information": "lengths known", "num_devices": "devices", "entry_point": "made by"}


def _print_table(kind: str, rows: Rows) -> None:
    """Everything but the sources of policies and routers, for which --json has room."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = output.console()
    if not rows:
        console.print(f"no {kind} here")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    names = [name for name in rows[0] if name != "source" or kind not in ("policies", "routers")]
    for name in names:
        table.add_column(_HEADERS.get(name, name), no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in names))
    console.print(table)
