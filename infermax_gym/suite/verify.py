"""Whether a result is true: its decisions are carried out again, and everything that follows is computed anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym.suite.cards import card_of
from infermax_gym.suite.play import SuiteAgent, information_of, play_episode
from infermax_gym.suite.replay import replay
from infermax_gym.suite.result import Progress, overall, read_result, task_record
from infermax_gym.suite.tasks import SuiteError, Task, tasks_of

_TOLERANCE = 1e-9
"""Relative: figures in the file have 12 digits."""
_HUGE = 1e300
_MARGIN = 1e-6
"""By which an objective may lie below what nobody can beat, relative; more is a fault of the engine or the bound."""


def verify(
    path: Path, *, runs: Mapping[str, SuiteAgent] | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Certify a result file.

    Args:
        path: the file.
        runs: the agents by SHA-256: they play again and must decide what the file says, which shows that they did not
            look into the future; None: it is only certified that the decisions reach the scores.
        progress: called with a line after each task.

    Returns:
        The document.

    Raises:
        SuiteError: anything in the file is not what the engine says; one line.
    """
    document = read_result(path)
    try:
        _check(document, runs, progress)
    except SuiteError as error:
        raise SuiteError(f"{path}: {error}") from None
    return document


def _check(document: dict[str, Any], runs: Mapping[str, SuiteAgent] | None, progress: Progress | None) -> None:
    known = {task.id: task for task in tasks_of(str(document.get("suite")))}
    digests = document["runs"]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    if document.get("sha256") != whole:
        raise SuiteError("sha256 is not that of its runs")
    if runs is not None and list(runs) != digests:
        raise SuiteError("the agents given have other SHA-256 digests than those of the file")
    if runs:
        told = max(information_of(agent) for agent in runs.values()).name.lower()
        if told != document["information"]:
            raise SuiteError(f"information is {document['information']} in the file; the agents say {told}")
    for name, record in document["tasks"].items():
        if name not in known:
            raise SuiteError(f"suite {document['suite']} has no task {name!r}")
        _check_task(known[name], record, len(digests), document["suite"])
        if runs is not None:
            _check_again(known[name], record, runs)
        if progress is not None:
            progress(f"{name}: {len(record['seeds'])} episodes certified")
    _same("the mean over tasks", document, overall(document["tasks"]))


def _check_task(task: Task, record: Mapping[str, Any], num_runs: int, suite: str) -> None:
    if record["seeds"] != task.seeds() * num_runs:
        raise SuiteError(f"{task.id}: seeds are not the {len(task.seeds())} test seeds of the suite, for each run")
    decisions = record["decisions"]
    episodes = task.episodes() * num_runs
    if not isinstance(decisions, list) or len(decisions) != len(episodes) or not all(type(d) is str for d in decisions):
        raise SuiteError(f"{task.id}: expected decisions for {len(episodes)} episodes, as text")
    reached = [replay(task, v, seed, text) for (v, seed), text in zip(episodes, decisions, strict=True)]
    least = np.tile(card_of(task, suite).one, num_runs)
    if (np.array(reached) < least - _MARGIN * np.maximum(np.abs(least), 1.0)).any():
        raise SuiteError(f"{task.id}: an objective lies below the certified bound; please report this file")
    _same(task.id, record, task_record(task, reached, decisions, suite))


def _same(where: str, said: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Whether figures of a file are those that were computed anew."""
    for name in ("objective", "score", "interquartile_mean", "ci95"):
        if name not in found:
            continue
        values = said.get(name)
        expected = np.atleast_1d(np.array(found[name], np.float64))
        listed: list[Any] = values if isinstance(values, list) else [values]
        if len(listed) != len(expected) or not all(type(v) in (int, float) for v in listed):
            raise SuiteError(f"{where}: {name} must be {len(expected)} numbers")
        given = np.array([float(v) if abs(v) < _HUGE else np.inf for v in listed])
        wrong = ~np.isclose(given, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise SuiteError(f"{where}: {name} is {given[i]:.9g} in the file; the decisions give {expected[i]:.9g}")


def _check_again(task: Task, record: Mapping[str, Any], runs: Mapping[str, SuiteAgent]) -> None:
    episodes = task.episodes()
    for k, agent in enumerate(runs.values()):
        for i, (variant, seed) in enumerate(episodes):
            if play_episode(agent, task, variant, seed).decisions != record["decisions"][k * len(episodes) + i]:
                raise SuiteError(f"{task.id}, seed {seed}: the agent decides something else than the file says")
