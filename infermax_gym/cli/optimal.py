"""`infermax optimal`: the best schedule that can be found for an instance, and how far it is from any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import options, output
from infermax_gym.cli.errors import InputError, Interrupted

if TYPE_CHECKING:
    from infermax_gym.baselines.optimum.incumbent import Solution
    from infermax_gym.baselines.optimum.instance import Instance


class Objective(str, Enum):
    """What is minimised."""

    makespan = "makespan"
    latency = "latency"


def optimal(
    instance: Annotated[Path, typer.Argument(metavar="INSTANCE.json", show_default=False)],
    objective: Annotated[Objective, typer.Option(help="The makespan, or the mean latency.")] = Objective.makespan,
    no_preemption: Annotated[bool, typer.Option("--no-preemption", help="Forbid preemption.")] = False,
    reserve: Annotated[bool, typer.Option("--reserve", help="Reserve all of I + O - 1 on admission.")] = False,
    time_limit: Annotated[float, typer.Option(min=0.0, metavar="S", help="Seconds to search.")] = 20.0,
    workers: Annotated[int, typer.Option(min=1, metavar="K", help="Threads.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    schedule_out: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="One line per iteration.", rich_help_panel="Output")
    ] = None,
    trace_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="A timeline for Perfetto or Chrome.", rich_help_panel="Output"),
    ] = None,
    picture_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|.svg", help="A Gantt chart with KV use.", rich_help_panel="Output"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write optimal.json there, for infermax report.", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Search the optimum of a small instance, with a certified gap."""
    from infermax_gym.baselines.optimum.instance import InstanceError, load_instance
    from infermax_gym.baselines.optimum.portfolio import solve

    if no_preemption and reserve:
        raise InputError("--no-preemption and --reserve exclude each other; give one of them")
    for path in (schedule_out, trace_out, picture_out):
        output.writable_file(path)
    folder = None if out is None else output.writable_folder(out)
    try:
        problem = load_instance(instance)
    except InstanceError as error:
        raise InputError(str(error)) from None
    variant: Any = "no-preemption" if no_preemption else "reserve" if reserve else "preemptive"
    name: Any = objective.value
    found = solve(
        problem,
        name,
        variant=variant,
        time_limit_s=time_limit,
        workers=workers,
        seed=seed,
        progress=_progress(),
    )
    _write_files(found, problem.kv_tokens, schedule_out, trace_out, picture_out)
    if folder is not None:
        output.write_text(folder / "optimal.json", output.to_json(_document(found, problem), indent=None) + "\n")
    print(output.to_json(found.to_dict()) if json else _text(found))
    if found.interrupted:
        raise Interrupted("the best that was found until then is above")


def _document(found: Solution, problem: Instance) -> dict[str, Any]:
    """What --json says, with the instance and when each iteration runs."""
    schedule = () if found.run is None or found.run.schedule is None else found.run.schedule
    sizes = ("kv_tokens", "max_num_batched_tokens", "max_num_seqs", "block_size")
    lengths = ("arrival_s", "num_prompt_tokens", "num_output_tokens")
    return {
        "schema": 1,
        **found.to_dict(),
        "spans_s": [(iteration.start_s, iteration.end_s) for iteration in schedule],
        "preempted": [iteration.preempted for iteration in schedule],
        "instance": {
            "requests": [{name: getattr(request, name) for name in lengths} for request in problem.requests],
            **{name: getattr(problem, name) for name in sizes},
            "cost": problem.cost.name,
        },
    }


def _progress() -> Callable[[float, float], None]:
    """Shows incumbent, bound and gap on standard error, whenever one of them changes visibly."""
    console = output.progress_console()
    last = [""]

    def show(value_s: float, bound_s: float) -> None:
        incumbent = f"incumbent {value_s:.6g} s" if math.isfinite(value_s) else "no schedule yet"
        gap = f", gap {1.0 - bound_s / value_s:.2%}" if 0.0 < value_s < math.inf else ""
        line = f"{incumbent}, bound {bound_s:.6g} s{gap}"
        if line != last[0]:
            last[0] = line
            console.print(line)

    return show


def _text(found: Solution) -> str:
    what = "makespan" if found.objective == "makespan" else "mean latency"
    if found.run is None:
        reason = "no schedule meets the limits (proven)" if found.status == "infeasible" else "no schedule was found"
        return f"{found.status}: {reason}; any has a {what} of at least {found.lower_bound_s:.6g} s"
    certified = "" if found.status == "optimal" else f", at most {found.gap / (1.0 - found.gap):.2%} above the optimum"
    return (
        f"{found.status}: {what} {found.objective_s:.6g} s{certified}\n"
        f"{found.run.num_iterations} iterations, {found.run.num_preemptions} preemptions ({found.method})"
    )


def _write_files(
    found: Solution, kv_tokens: int, schedule_out: Path | None, trace_out: Path | None, picture_out: Path | None
) -> None:
    from infermax_gym.evaluation.export import write_schedule_jsonl
    from infermax_gym.viewer.perfetto import write_trace

    if found.run is None:
        return
    for path, write in ((schedule_out, write_schedule_jsonl), (trace_out, write_trace)):
        if path is not None:
            with output.atomic(path) as file:
                write(found.run, file)
    if picture_out is not None:
        from infermax_gym.viewer.schedule import draw_schedules

        try:
            draw_schedules({f"{found.objective}: {found.status}": found.run}, picture_out, kv_tokens)
        except ValueError as error:
            raise InputError(f"{picture_out}: {error}") from None
