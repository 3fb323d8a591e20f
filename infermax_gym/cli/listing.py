"""`infermax list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from infermax_gym.cli import engine_list, options, output, own
from infermax_gym.cli.errors import InputError
from infermax_gym.plugins import Kind

Rows = list[dict[str, Any]]


def list_names(
    kind: Annotated[
        str, typer.Argument(metavar="policies|routers|costs|devices|models|workloads|envs|agents", show_default=False)
    ],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of costs: only engines of this model.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="Of costs: only engines on this GPU.")] = None,
    json: options.Json = False,
) -> None:
    """Show the names that other commands take."""
    if kind not in _LISTS:
        raise InputError(f"cannot list {kind!r}; expected one of {', '.join(_LISTS)}")
    chosen = model is not None or gpu is not None
    if chosen and kind != "costs":
        raise InputError(f"--model and --gpu choose among costs, not among {kind}")
    engines = engine_list.chosen(model, gpu) if kind == "costs" else []
    rows = [] if chosen else _LISTS[kind]()
    if json:
        print(output.to_json({"schema": 1, kind: [*rows, *map(engine_list.document, engines)]}))
    elif chosen:
        engine_list.print_engines(engines)
    else:
        _print_table(kind, rows)
        if engines:
            engine_list.print_summary(engines)


def _policies() -> Rows:
    from infermax_gym.baselines.catalogue import SCHEDULERS
    from infermax_gym.evaluation import information_of

    def row(policy: Any) -> dict[str, Any]:
        return {"information": information_of(policy), "note": _said(policy, "note"), "source": _said(policy, "source")}

    return _rows("policies", SCHEDULERS, row)


def _routers() -> Rows:
    from infermax_gym.baselines.routers import ROUTERS
    from infermax_gym.evaluation import information_of

    def row(router: Any) -> dict[str, Any]:
        return {"information": information_of(router), "note": _said(router, "note"), "source": _said(router, "source")}

    return _rows("routers", ROUTERS, row)


def _costs() -> Rows:
    from infermax_gym.cost import COSTS

    return _rows("costs", COSTS, lambda model: {"num_devices": model.num_devices, "source": model.source})


def _devices() -> Rows:
    from infermax_gym.cost.roofline import known_devices

    return [
        {
            "name": device.name,
            "tflops_16bit": device.dense_16bit_tflops,
            "tflops_fp8": device.dense_fp8_tflops,
            "tflops_fp4": device.dense_fp4_tflops,
            "memory_tb_per_s": device.memory_tb_per_s,
            "memory_gib": device.memory_gib,
            "link_gb_per_s": device.link_gb_per_s,
            "source": device.source,
        }
        for device in known_devices().values()
    ]


def _models() -> Rows:
    from infermax_gym.cost.roofline import known_models

    return [
        {
            "name": shape.name,
            "weights_1e9": round(shape.num_weights / 1e9, 2),
            "layers": shape.num_layers,
            "experts": None if shape.experts is None else shape.experts.num_experts,
            "window": None if shape.window is None else shape.window.num_tokens,
            "kv_kib_per_token": shape.kv_bytes_per_token / 1024,
            "format": shape.weights,
        }
        for shape in known_models().values()
    ]


def _workloads() -> Rows:
    from infermax_gym.workload import PRESETS

    def row(preset: Any) -> dict[str, Any]:
        return {"note": _said(preset, "note") or (preset.__doc__ or "").split("\n")[0]}

    return _rows("workloads", PRESETS, row)


def _rows(kind: Kind, table: Mapping[str, Any], row: Callable[[Any], dict[str, Any]]) -> Rows:
    """What we have by name, then what installed packages add, with the package."""
    rows = [{"name": name, **row(item)} for name, item in table.items()]
    for name, (package, item) in own.added(kind, table).items():
        rows.append({"name": name, **row(item), "package": package})
    return rows


def _said(item: Any, what: str) -> str:
    """What something says of itself, if it does."""
    return str(getattr(item, what, ""))


def _envs() -> Rows:
    import gymnasium

    import infermax_gym  # noqa: F401 - registers them

    specs = [spec for name, spec in gymnasium.registry.items() if name.startswith("InferMax")]
    return [{"name": spec.id, "entry_point": str(spec.entry_point)} for spec in specs]


def _agents() -> Rows:
    from infermax_gym.agents import list_agents

    return list_agents()


_LISTS: dict[str, Callable[[], Rows]] = {
    "policies": _policies,
    "routers": _routers,
    "costs": _costs,
    "devices": _devices,
    "models": _models,
    "workloads": _workloads,
    "envs": _envs,
    "agents": _agents,
}


_HEADERS = {"information": "lengths known", "num_devices": "devices", "entry_point": "made by"}


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


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
    shown = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in shown if name != "source" or kind not in ("policies", "routers", "devices")]
    for name in names:
        table.add_column(_HEADERS.get(name, name), no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(row.get(name))) for name in names))
    console.print(table)
