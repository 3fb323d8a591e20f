"""`infermax verify`: whether a result of the suite is true."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from infermax_gym.cli.errors import InputError
from infermax_gym.cli.suite_agents import suite_agents
from infermax_gym.suite.tasks import SuiteError


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What infermax evaluate wrote.")],
    agent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AGENT",
            help="Also have the agent play again: it must decide what the file says. Once for each training run.",
            show_default="none",
        ),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Also read archives of stable-baselines3, which run code.")
    ] = False,
) -> None:
    """Carry out the decisions of a result again and certify its scores; refuse whatever is not so."""
    from infermax_gym.suite import verify as verification

    try:
        runs = suite_agents(agent, trust_pickle) if agent else None
        document = verification.verify(file, runs=runs, progress=lambda line: print(line, file=sys.stderr, flush=True))
    except SuiteError as error:
        raise InputError(str(error)) from None
    low, high = document["ci95"]
    how = "replayed" if runs is None else "replayed, and played again by the agent"
    print(f"certified ({how}): {document['agent']} {document['interquartile_mean']:.3f} [{low:.3f}, {high:.3f}]")
