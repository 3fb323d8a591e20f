"""The leaderboard: certified results, ranked task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.suite.result import read_result, samples_by_task
from infermax_gym.suite.scoring import performance_profile, probability_of_improvement
from infermax_gym.suite.tasks import VERSION, SuiteError, Task, short_name, tasks_of

THRESHOLDS = (0.0, 0.25, 0.5)
Document = Mapping[str, Any]
Documents = Mapping[str, Document]


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a folder by file name.

    Raises:
        SuiteError: a file is no result or a link, which may show something else elsewhere, or two have one agent's
            name.
    """
    for path in folder.glob("*.json"):
        if path.is_symlink():
            raise SuiteError(f"{path}: is a link; expected the file itself")
    found = {path.name: read_result(path) for path in sorted(folder.glob("*.json"))}
    names = [document["agent"] for document in found.values()]
    for name in names:
        if names.count(name) > 1:
            raise SuiteError(f"{folder}: two files have the agent {name!r}; expected a name for each")
    return found


def ranked(documents: Documents, task: str) -> list[Document]:
    """The documents that play a task, the highest interquartile mean first."""
    played = (d for d in documents.values() if task in d["tasks"])
    return sorted(played, key=lambda d: (-float(d["tasks"][task]["interquartile_mean"]), str(d["agent"])))


def render(documents: Documents, again: Sequence[str]) -> str:
    """LEADERBOARD.md.

    Args:
        documents: certified results.
        again: names of agents that have played again and decided the same.
    """
    tasks = [task for task in tasks_of(VERSION) if ranked(documents, task.id)]
    parts = [_HEAD, _overview(documents, tasks), _LEGEND]
    parts += [_ranking(documents, task) for task in tasks]
    parts.append(_agents(documents, again))
    return "\n\n".join(part.strip() for part in parts) + "\n"


_HEAD = f"""
# Leaderboard of the suite {VERSION}

0 is the best default policy, chosen in hindsight for each engine and traffic. 1 is the proven optimum (`toy`), or a
certified bound that perhaps nobody can reach. How to take part: [docs/suite.md](docs/suite.md#take-part).

## At a glance

Scores by task, the best in bold. An empty field: not played, or not made for it.
"""
_LEGEND = """
## Task by task

Scores are interquartile means with 95 % intervals of a stratified bootstrap: over training runs, or over episodes where
there is one run. "Above" is the share of these samples above a score. "Beats the next" is the probability that a sample
beats one of the agent below, with its interval.
"""


def _overview(documents: Documents, tasks: Sequence[Task]) -> str:
    best = {task.id: _rounded(ranked(documents, task.id)[0]["tasks"][task.id]["interquartile_mean"]) for task in tasks}
    names = [d["agent"] for d in _by_mean_rank(documents, tasks)]
    by_name = {d["agent"]: d for d in documents.values()}
    lines = [["agent", *(short_name(task) for task in tasks)]]
    for name in names:
        played = by_name[name]["tasks"]
        figures = []
        for task in tasks:
            figure = _rounded(played[task.id]["interquartile_mean"]) if task.id in played else ""
            figures.append(f"**{figure}**" if figure == best[task.id] else figure)
        lines.append([f"`{name}`", *figures])
    return _table(lines)


def _by_mean_rank(documents: Documents, tasks: Sequence[Task]) -> list[Document]:
    """Those that play the most tasks first; among them, the best mean rank first."""
    places: dict[str, list[int]] = {str(d["agent"]): [] for d in documents.values()}
    for task in tasks:
        for place, d in enumerate(ranked(documents, task.id)):
            places[str(d["agent"])].append(place)

    def key(d: Document) -> tuple[int, float, str]:
        mine = places[str(d["agent"])]
        return -len(mine), float(np.mean(mine)), str(d["agent"])

    return sorted(documents.values(), key=key)


def _ranking(documents: Documents, task: Task) -> str:
    played = ranked(documents, task.id)
    means = [float(d["tasks"][task.id]["interquartile_mean"]) for d in played]
    lines = [["rank", "agent", "score", *(f"above {tau:g}" for tau in THRESHOLDS), "beats the next"]]
    for place, d in enumerate(played):
        low, high = d["tasks"][task.id]["ci95"]
        samples = _samples(d, task)
        shares = [f"{share:.2f}" for share in performance_profile([samples], THRESHOLDS)]
        score = f"{_rounded(d['tasks'][task.id]['interquartile_mean'])} [{_rounded(low)}, {_rounded(high)}]"
        beats = _improvement(samples, _samples(played[place + 1], task)) if place + 1 < len(played) else ""
        rank = 1 + sum(mean > means[place] for mean in means)
        lines.append([str(rank), f"`{d['agent']}`", score, *shares, beats])
    return f"### {short_name(task)}: {task.title}\n\n{_table(lines, left=2)}"


def _samples(document: Document, task: Task) -> NDArray[np.float64]:
    return samples_by_task({task.id: document["tasks"][task.id]})[task.id]


def _improvement(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    value, (low, high) = probability_of_improvement([first], [second])
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _rounded(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00")


_AGENTS = """
## Agents

"Knows" is what an agent is told of output lengths. "Again" says that the agent has played again and decided the same:
it cannot have known the future. Without it only the scores are certain. `python -m experiments.suite.leaderboard`
certifies every file of leaderboard/ and writes this page.
"""


def _agents(documents: Documents, again: Sequence[str]) -> str:
    lines = [["agent", "knows", "runs", "again", "command"]]
    for d in sorted(documents.values(), key=lambda d: str(d["agent"])):
        known = "no lengths" if d["information"] == "none" else "bounds"
        command = d.get("command") or f"infermax evaluate {d['agent']} --suite {VERSION}"
        mark = "yes" if d["agent"] in again else "no"
        lines.append([f"`{d['agent']}`", known, str(len(d["runs"])), mark, f"`{command}`"])
    return f"{_AGENTS.strip()}\n\n{_table(lines, left=5)}"


def _table(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    head, *rest = lines
    rule = [*("---" for _ in head[:left]), *("--:" for _ in head[left:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rest))
