"""`infermax evaluate`: an agent on the benchmark suite."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError
from infermax_gym.cli.suite_agents import suite_agents
from infermax_gym.suite.tasks import VERSION, SuiteError, task_of


def evaluate(
    agent: Annotated[
        list[str],
        typer.Argument(
            metavar="AGENT...",
            help="A shipped or trained agent, a policy, a router, random, or MODULE:NAME of a scheduler or of a "
            "function (observation, mask) -> action. Several are the training runs of one.",
        ),
    ],
    suite: Annotated[str, typer.Option(metavar="VERSION", help="Version of the suite.")] = VERSION,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result there.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the agent, in tables.", show_default="AGENT's own")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="a,b,c", help="Play these alone, such as toy or router.", show_default="all it can play"),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What makes the agent, one line, for tables.", show_default="none"),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Also read archives of stable-baselines3, which run code.")
    ] = False,
) -> None:
    """Score an agent on the benchmark suite: 0 is the best default policy, 1 the certified bound or the optimum."""
    from infermax_gym.suite import result

    output.writable_file(out)
    try:
        chosen = None if tasks is None else [task_of(part.strip(), suite) for part in tasks.split(",")]
        runs = suite_agents(agent, trust_pickle)
        document = result.evaluate(
            runs,
            name=Path(agent[0]).name.removesuffix(".safetensors") if name is None else name,
            suite=suite,
            tasks=chosen,
            command=command,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except SuiteError as error:
        raise InputError(str(error)) from None
    if out is not None:
        output.write_text(out, output.to_json(document, indent=0) + "\n")
    console = output.console()
    for task, record in document["tasks"].items():
        low, high = record["ci95"]
        console.print(f"{task:<32} {record['interquartile_mean']:7.3f}  [{low:.3f}, {high:.3f}]", markup=False)
    low, high = document["ci95"]
    console.print(
        f"{'all tasks, interquartile mean':<32} {document['interquartile_mean']:7.3f}  [{low:.3f}, {high:.3f}]",
        markup=False,
    )
