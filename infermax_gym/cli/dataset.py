"""`infermax dataset`: trajectories of a task of the suite, for offline learning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError
from infermax_gym.suite.tasks import task_of


def dataset(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task of the suite, such as toy.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the data sets (MINARI_DATASETS_PATH).")
    ],
    kinds: Annotated[
        str | None,
        typer.Option(metavar="a,b,c", help="random, default, expert, optimal.", show_default="all that play the task"),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, metavar="N", help="Episodes of each.")] = 100,
) -> None:
    """Write Minari data sets of a task: random, best default, tuned and optimal trajectories of the training split."""
    try:
        chosen = task_of(task)
        folder = output.writable_folder(out)

        from infermax_gym.suite.data import make_dataset
        from infermax_gym.suite.trajectories import KINDS, kinds_of

        names = kinds_of(chosen) if kinds is None else [name.strip() for name in kinds.split(",")]
        for kind in names:
            if kind not in KINDS:
                raise InputError(f"--kinds has {kind!r}; expected {', '.join(KINDS)}")
            print(f"{chosen.id}: {kind} ...", file=sys.stderr, flush=True)
            print(make_dataset(chosen, kind, folder, episodes))  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(str(error)) from None
