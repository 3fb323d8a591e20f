"""`infermax optimal`: the best schedule that can be found for an instance, and how far it is from any other."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from infermax_gym.cli import options, output
from infermax_gym.cli.errors import InputError


class Objective(str, Enum):
    """What is minimised."""

    makespan = "makespan"
    latency = "latency"


def optimal(
    instance: Annotated[Path, typer.Argument(metavar="INSTANCE.json", show_default=False)],
    objective: Annotated[
        Objective, typer.Option(help="The makespan (GPU cost), or the mean latency.")
    ] = Objective.makespan,
    no_preemption: Annotated[bool, typer.Option("--no-preemption", help="Forbid preemption.")] = False,
    reserve: Annotated[bool, typer.Option("--reserve", help="Reserve all of I + O - 1 on admission.")] = False,
    time_limit: Annotated[float, typer.Option(min=0.0, metavar="S", help="Seconds to search.")] = 20.0,
    workers: Annotated[int, typer.Option(min=1, metavar="K", help="Searches side by side.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    json: options.Json = False,
) -> None:
    """Search the optimum of a small instance, with a certified gap."""
    from baselines.optimum.instance import InstanceError, load_instance
    from baselines.optimum.portfolio import solve

    if no_preemption and reserve:
        raise InputError("--no-preemption and --reserve exclude each other; give one of them")
    try:
        problem = load_instance(instance)
    except InstanceError as error:
        raise InputError(str(error)) from None
    variant: Any = "no-preemption" if no_preemption else "reserve" if reserve else "preemptive"

    def show(value_s: float, bound_s: float) -> None:
        console.print(f"incumbent {value_s:.6g} s, bound {bound_s:.6g} s, gap {1.0 - bound_s / value_s:.1%}")

    console = output.progress_console()
    name: Any = objective.value
    found = solve(
        problem,
        name,
        variant=variant,
        time_limit_s=time_limit,
        workers=workers,
        seed=seed,
        progress=show,
    )
    if json:
        print(output.to_json(found.to_dict()))
        return
    what = "makespan" if objective is Objective.makespan else "mean latency"
    print(f"{found.status}: {what} {found.objective_s:.6g} s, certified within {found.gap:.2%} of the optimum")
    if found.run is not None:
        print(f"{found.run.num_iterations} iterations, {found.run.num_preemptions} preemptions ({found.method})")
