"""A search for flags, for people, from the JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from infermax_gym.evaluation.report import caption
from infermax_gym.evaluation.table import comparison_table


def render_tuning(document: Mapping[str, Any], console: Console) -> None:
    """Print a `tune` document: what was asked, the answer, the figures behind it, and what to type."""
    config = document["config"]
    for line in caption(document):
        console.print(Text(line))
    kind = "seeds" if config["windows_are_seeds"] else "windows"
    console.print(
        Text(
            f"verdict   on {config['windows']} held-out {kind} of {config['window_requests']:,} requests; "
            f"{len(document['candidates']):,} candidates searched on {config['windows']} others in "
            f"{document['wall_s']:.0f} s"
        )
    )
    console.print()
    for line in document["answer"]:
        console.print(Text(line))
    compared = {
        name: {**part["figures"], "information": part["information"]}
        for name, part in _parts(document).items()
        if part["figures"] is not None
    }
    if len(compared) > 1 and config["objective"] != "cost":  # the table is of the workload's rate
        console.print()
        console.print(comparison_table(compared, console.width)[0])
    console.print()
    for command in document["commands"]:
        console.print(Text(command), soft_wrap=True)


def _parts(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    parts = {"today": document["today"]}
    if document["flags"]["recommended"]:
        parts["best flags"] = document["flags"]
    if document["policy"] is not None:
        parts[document["policy"]["name"]] = document["policy"]
    return parts
