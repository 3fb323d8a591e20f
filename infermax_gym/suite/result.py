"""The file of a result: made by playing every test episode, read with suspicion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import Router
from infermax_gym.engine import Information, Policy
from infermax_gym.suite.cards import card_of
from infermax_gym.suite.play import SuiteAgent, can_play, check_rules, information_of, play_episode
from infermax_gym.suite.scoring import bootstrap, interquartile_mean, pooled_mean, samples_of
from infermax_gym.suite.tasks import VERSION, SuiteError, Task, tasks_of

SCHEMA = 1
MOST_BYTES = 64 * 2**20
"""Of a result file."""
MOST_RUNS = 100
_DIGITS = 12
_MOST_NAME = 80
_MOST_COMMAND = 200
_FIELDS = {"seeds", "score", "objective", "decisions", "interquartile_mean", "ci95"}

Progress = Callable[[str], None]
Floats = NDArray[np.float64]


def fingerprint(agent: SuiteAgent, file: Path | None = None) -> str:
    """SHA-256 of an agent: of its file, of the knobs of a policy or router that are set, or else of its name."""
    if file is not None:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    if isinstance(agent, Policy | Router):
        knobs = [(f.name, getattr(agent, f.name)) for f in fields(agent) if f.compare]
        unset = {f.name: f.default for f in fields(agent)}
        given = [(name, value) for name, value in knobs if value != unset[name]]
        return hashlib.sha256(repr(given).encode()).hexdigest()
    return hashlib.sha256(str(getattr(agent, "name", "")).encode()).hexdigest()


def evaluate(
    runs: Mapping[str, SuiteAgent],
    *,
    name: str,
    suite: str = VERSION,
    tasks: Sequence[Task] | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Play the test episodes and put what came out into the document of a result.

    Args:
        runs: an agent's training runs by their SHA-256, one or several; all play every episode.
        name: of the agent, for tables.
        suite: version.
        tasks: those to play; None: all that such an agent can play.
        command: what makes the agent, one line, for tables; None: nothing, it is there already.
        progress: called with a line after each task.

    Raises:
        SuiteError: an agent cannot play a task, needs what the task does not tell, or leaves requests unfinished; or
            the name or the command is not fit for a table.
    """
    _check_text("agent", name, _MOST_NAME)
    if command is not None:
        _check_text("command", command, _MOST_COMMAND)
    chosen = _playable(list(runs.values()), tasks_of(suite) if tasks is None else tasks, asked=tasks is not None)
    found: dict[str, Any] = {}
    for task in chosen:
        played = [play_episode(agent, task, v, seed) for agent in runs.values() for v, seed in task.episodes()]
        found[task.id] = task_record(task, [p.objective for p in played], [p.decisions for p in played], suite)
        if progress is not None:
            progress(f"{task.id}: interquartile mean {found[task.id]['interquartile_mean']:.3f}")
    digest = next(iter(runs)) if len(runs) == 1 else hashlib.sha256("".join(runs).encode()).hexdigest()
    information = max(information_of(a) for a in runs.values())
    return {
        "schema": SCHEMA,
        "suite": suite,
        "agent": name,
        "sha256": digest,
        "runs": list(runs),
        "information": Information(information).name.lower(),
        **({} if command is None else {"command": command}),
        **overall(found),
        "tasks": found,
    }


def _playable(agents: Sequence[SuiteAgent], tasks: Sequence[Task], asked: bool) -> list[Task]:
    chosen = []
    for task in tasks:
        fits = all(can_play(agent, task) for agent in agents)
        if not fits and asked:
            kind = "routers" if task.is_fleet else "schedulers of one engine"
            raise SuiteError(f"{task.id} is for {kind}; the agent is none")
        if fits:
            for agent in agents:
                check_rules(agent, task)
            chosen.append(task)
    if not chosen:
        raise SuiteError("there is nothing to play: no agent, or no task that it can play")
    return chosen


def task_record(task: Task, objectives: Sequence[float], decisions: Sequence[str], suite: str) -> dict[str, Any]:
    """What a result says of a task; arrays are run after run, each in the order of the test episodes."""
    card = card_of(task, suite)
    values = np.array(objectives, np.float64).reshape(-1, len(card.zero))
    scores = _rounded(card.score(values))
    samples = samples_of(scores)
    mean, interval = interquartile_mean(samples), bootstrap(pooled_mean, [samples])
    return {
        "seeds": task.seeds() * len(values),
        "score": scores.ravel().tolist(),
        "objective": [_round(v) for v in objectives],
        "interquartile_mean": _round(mean),
        "ci95": [_round(v) for v in interval],
        "decisions": list(decisions),
    }


def overall(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Interquartile mean and interval over the tasks played, from their records."""
    samples = samples_by_task(tasks)
    strata = list(samples.values())
    interval = bootstrap(pooled_mean, strata)
    return {"interquartile_mean": _round(pooled_mean(strata)), "ci95": [_round(v) for v in interval]}


def samples_by_task(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Floats]:
    """The samples of each task of a result."""
    counts = {task.id: len(task.episodes()) for each in (tasks_of(VERSION),) for task in each}
    return {
        name: samples_of(np.array(record["score"], np.float64).reshape(-1, counts[name]))
        for name, record in tasks.items()
    }


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: Floats) -> Floats:
    return np.array([_round(v) for v in values.ravel()], np.float64).reshape(values.shape)


def read_result(path: Path) -> dict[str, Any]:
    """A result file of the right shape; that what it says is true is for `infermax_gym.suite.verify`.

    Raises:
        SuiteError: it is missing, too large, no JSON, or of another shape; one line.
    """
    try:
        if not path.is_file() and path.exists():
            raise SuiteError(f"{path}: is no plain file; expected what infermax evaluate writes")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise SuiteError(f"{path}: has {size:,} bytes; a result has at most {MOST_BYTES:,}")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
    except SuiteError:
        raise
    except (ValueError, RecursionError):
        raise SuiteError(f"{path}: is no JSON; expected what infermax evaluate writes") from None
    try:
        _check_shape(document)
    except SuiteError as error:
        raise SuiteError(f"{path}: {error}") from None
    checked: dict[str, Any] = document
    return checked


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _check_shape(document: Any) -> None:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise SuiteError(f"is no result of schema {SCHEMA}; expected what infermax evaluate writes")
    name, runs, tasks = document.get("agent"), document.get("runs"), document.get("tasks")
    _check_text("agent", name, _MOST_NAME)
    if "command" in document:
        _check_text("command", document["command"], _MOST_COMMAND)
    if not isinstance(runs, list) or not 0 < len(runs) <= MOST_RUNS or not all(map(_is_digest, runs)):
        raise SuiteError(f"runs must be 1 to {MOST_RUNS} SHA-256 digests")
    if len(set(runs)) != len(runs):
        raise SuiteError("runs names one agent twice; each training run counts once")
    if document.get("information") not in ("none", "bound"):
        raise SuiteError("information must be none or bound: no task tells output lengths")
    if not isinstance(tasks, dict) or not tasks:
        raise SuiteError("tasks must be an object with at least one task")
    for task, record in tasks.items():
        if not isinstance(record, dict) or not record.keys() >= _FIELDS:
            raise SuiteError(f"task {task!r} must have {', '.join(sorted(_FIELDS))}")


def _check_text(what: str, text: Any, most: int) -> None:
    """Whether a text stands in a table as it is."""
    fits = isinstance(text, str) and len(text.strip()) > 0 and len(text) <= most and text.isprintable()
    if not fits or set(text) & set("|<>`"):
        raise SuiteError(f"{what} must be a printable text of at most {most} characters without | < > `")


def _is_digest(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")
