"""`infermax sweep`: policies x workloads x engines x loads x seeds, on all cores or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import options, output
from infermax_gym.cli.errors import InputError, Interrupted

if TYPE_CHECKING:
    from infermax_gym.cli.sweep_config import SweepConfig
    from infermax_gym.sweep import Outcome, Report, Store, Task
    from infermax_gym.sweep.tasks import Execute

_PROBED_REQUESTS = 200


def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to cross with what; docs/sweep.md.")],
    address: Annotated[
        str | None,
        typer.Option(metavar="A", help="Run on this Ray cluster, such as auto.", show_default="this machine"),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="processes|ray", help="Who runs the scenarios; Ray also where --address is given."),
    ] = "processes",
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes on this machine.", show_default="its cores")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the results.", show_default="CONFIG-sweep, in this folder"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many scenarios, and how long.")] = False,
    json: options.Json = False,
) -> None:
    """Run many scenarios; a rerun computes what is missing."""
    from infermax_gym.cli.sweep_config import read_config, tasks_of
    from infermax_gym.sweep import Store, StoreError
    from infermax_gym.sweep.tasks import Work

    for package in ("pyarrow", "yaml"):
        if find_spec(package) is None:
            raise InputError(f"sweep needs {package}; install it with: pip install 'infermax-gym[sweep]'")
    crossed = read_config(config)
    tasks = list({task.key: task for task in tasks_of(crossed)}.values())
    store = Store(out or Path(f"{config.stem}-sweep"))
    workers = jobs or len(os.sched_getaffinity(0))
    execute = _executor(executor, address, workers)
    _warm_up(crossed)
    if dry_run:
        _say(_estimate(tasks, store, workers, str(store.results)), json)
        return
    from infermax_gym.cli import sweep_work

    try:
        with store.opened():
            store.describe({"config": crossed.as_json(), "num_scenarios": len(tasks)})
            report = _run(store, tasks, Work(sweep_work.load, sweep_work.run), execute)
    except StoreError as error:
        raise InputError(str(error)) from None
    _say({"scenarios": len(tasks), **_described(report), "results": str(store.results)}, json)
    if report.failures:
        first = report.failures[0]
        raise InputError(
            f"{len(report.failures)} of {len(tasks)} scenarios failed; {store.folder / 'failures.json'} says why, "
            f"the first is {first['policy']} on {first['workload']}: {first['error']}"
        )


def _executor(name: str, address: str | None, workers: int) -> Execute:
    from infermax_gym.sweep import run_in_processes

    if name not in ("processes", "ray"):
        raise InputError(f"--executor must be processes or ray, got {name!r}")
    if address is None and name == "processes":
        return partial(run_in_processes, num_workers=workers)
    if find_spec("ray") is None:
        raise InputError("ray is not installed; install it with: pip install 'infermax-gym[ray]'")
    from infermax_gym.sweep.on_ray import run_on_ray

    return partial(run_on_ray, address=address, num_workers=workers)


def _warm_up(config: SweepConfig) -> None:
    """Compile here, once, what every process will load."""
    from infermax_gym.cli.sweep_config import contender_of, engine_of
    from infermax_gym.evaluation.warming import warm_up

    contenders = [contender_of(entry) for entry in config.contenders]
    caching = {engine_of(entry).prefix_caching: engine_of(entry) for entry in config.engines}
    for engine in caching.values():
        warm_up(contenders, engine, output.say_compiling)


def _run(store: Store, tasks: Sequence[Task], work: Any, execute: Execute) -> Report:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from infermax_gym.cli.sweep_work import about
    from infermax_gym.sweep import run_missing

    num_missing = len({task.key for task in tasks} - store.keys())
    screen = output.progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    finished = 0
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        line = bar.add_task("scenarios", total=num_missing)

        def notify(outcome: Outcome) -> None:
            nonlocal finished
            finished += outcome.error is None
            bar.update(line, advance=1)

        try:
            return run_missing(store, tasks, work, execute, lambda task: about(task.argument), notify)
        except KeyboardInterrupt:
            raise Interrupted(f"{finished} of {num_missing} scenarios are kept; run it again to go on") from None


def _described(report: Report) -> dict[str, Any]:
    return {
        "kept": report.num_kept,
        "computed": report.num_computed,
        "retried": report.num_retried,
        "failed": report.failures,
    }


def _estimate(tasks: Sequence[Task], store: Store, workers: int, results: str) -> dict[str, Any]:
    """Size, and the seconds that what is missing will take: as long as the same policy took here, else as a probe."""
    there, took = store.keys(), store.times()
    by_policy: dict[str, list[float]] = {}
    for task in tasks:
        if task.key in took:
            by_policy.setdefault(_name(task), []).append(took[task.key])
    missing = [task for task in tasks if task.key not in there]
    probed: dict[str, float] = {}
    total_s = 0.0
    for task in missing:
        known = by_policy.get(_name(task))
        if known is None and _name(task) not in probed:
            probed[_name(task)] = _probe(task)
        total_s += sum(known) / len(known) if known else probed[_name(task)]
    seconds = total_s / max(1, min(workers, len(missing)))
    return {
        "scenarios": len(tasks), "kept": len(tasks) - len(missing), "missing": len(missing), "workers": workers,
        "core_seconds": round(total_s, 1), "estimated_s": round(seconds, 1), "results": results,
    }  # fmt: skip


def _probe(task: Task) -> float:
    """Seconds of a scenario, from its first requests."""
    import time

    from infermax_gym.cli import sweep_work

    start = time.perf_counter()
    workload = sweep_work.load(task.shared.recipe)
    loaded_s = time.perf_counter() - start
    share = 1.0
    if len(workload) > _PROBED_REQUESTS and not workload.is_closed_loop:
        share = len(workload) / _PROBED_REQUESTS
        workload = workload.trace_slice(0, _PROBED_REQUESTS)
    start = time.perf_counter()
    sweep_work.run(task.argument, workload)
    return loaded_s + (time.perf_counter() - start) * share


def _name(task: Task) -> str:
    return str(task.argument.get("policy") or task.argument["agent"])


def _say(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(output.to_json({"schema": 1, **document}))
        return
    shown = {name: len(value) if isinstance(value, list) else value for name, value in document.items()}
    print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items()))
