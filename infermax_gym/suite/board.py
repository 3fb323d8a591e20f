"""The leaderboard: certified results, ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym.suite.result import read_result, samples_by_task
from infermax_gym.suite.scoring import performance_profile, probability_of_improvement
from infermax_gym.suite.tasks import VERSION, SuiteError, short_name, tasks_of

THRESHOLDS = (0.0, 0.25, 0.5, 0.75)
Documents = Mapping[str, Mapping[str, Any]]


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a folder by file name.

    Raises:
        SuiteError: a file is no result, or two have one agent's name.
    """
    found = {path.name: read_result(path) for path in sorted(folder.glob("*.json"))}
    names = [document["agent"] for document in found.values()]
    for name in names:
        if names.count(name) > 1:
            raise SuiteError(f"{folder}: two files have the agent {name!r}; expected a name for each")
    return found


def ranked(documents: Documents) -> list[Mapping[str, Any]]:
    """Documents, those that play the most tasks first, among them the highest mean first."""
    return sorted(
        documents.values(), key=lambda d: (-len(d["tasks"]), -float(d["interquartile_mean"]), str(d["agent"]))
    )


def render(documents: Documents, again: Sequence[str]) -> str:
    """LEADERBOARD.md.

    Args:
        documents: certified results.
        again: names of agents that have played again and decided the same.
    """
    parts = [_HEAD, _scores(documents, again)]
    groups = [list(g) for g in _groups(documents) if len(g) > 1]
    for group in groups:
        parts += [_profiles(group), _improvement(group)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_HEAD = f"""
# Leaderboard of the suite {VERSION}

Made by `python -m experiments.suite.leaderboard` from the files in leaderboard/, each of which it certifies first.
How to take part: [docs/suite.md](docs/suite.md#take-part). A score of 0 is the best default policy, chosen in hindsight
for each engine and traffic; 1 is the proven optimum (Toy) or a certified bound, which perhaps nobody can reach.
Figures are interquartile means with 95 % intervals of a stratified bootstrap, over training runs, or over episodes
where there is one run. "Again" says that the agent has played again and decided the same: it cannot have known the
future. Without it only the scores are certain.
"""


def _scores(documents: Documents, again: Sequence[str]) -> str:
    tasks = tasks_of(VERSION)
    lines = [["agent", "runs", "again", *(short_name(task) for task in tasks), "all that it plays"]]
    for d in ranked(documents):
        figures = [_figure(d["tasks"][task.id]) if task.id in d["tasks"] else "" for task in tasks]
        mark = "yes" if d["agent"] in again else "no"
        lines.append([f"`{d['agent']}`", str(len(d["runs"])), mark, *figures, _figure(d)])
    return f"## Scores\n\n{_table(lines)}"


def _figure(record: Mapping[str, Any]) -> str:
    low, high = record["ci95"]
    return f"{record['interquartile_mean']:.2f} [{low:.2f}, {high:.2f}]"


def _groups(documents: Documents) -> list[list[Mapping[str, Any]]]:
    """Documents that play the same tasks, the largest set of tasks first."""
    sets = sorted({tuple(sorted(d["tasks"])) for d in documents.values()}, key=lambda names: (-len(names), names))
    return [[d for d in ranked(documents) if tuple(sorted(d["tasks"])) == names] for names in sets]


def _title(group: Sequence[Mapping[str, Any]]) -> str:
    known = {task.id: short_name(task) for task in tasks_of(VERSION)}
    return ", ".join(name for task, name in known.items() if task in group[0]["tasks"])


def _profiles(group: Sequence[Mapping[str, Any]]) -> str:
    lines = [["agent", *(f"above {tau:g}" for tau in THRESHOLDS)]]
    for d in group:
        shares = performance_profile(list(samples_by_task(d["tasks"]).values()), THRESHOLDS)
        lines.append([f"`{d['agent']}`", *(f"{share:.2f}" for share in shares)])
    return f"## Performance profiles: {_title(group)}\n\nShare of samples above a score.\n\n{_table(lines)}"


def _improvement(group: Sequence[Mapping[str, Any]]) -> str:
    lines = [["agent", "beats the next with probability", "95 % interval"]]
    for first, second in pairwise(group):
        value, (low, high) = probability_of_improvement(_samples(first), _samples(second))
        lines.append([f"`{first['agent']}` over `{second['agent']}`", f"{value:.2f}", f"[{low:.2f}, {high:.2f}]"])
    return f"## Probability of improvement: {_title(group)}\n\n{_table(lines)}"


def _samples(document: Mapping[str, Any]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    found = samples_by_task(document["tasks"])
    return [found[name] for name in sorted(found)]


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    rule = ["---", *("--:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rest))
