"""Runs what a folder lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from infermax_gym.sweep.store import Store
from infermax_gym.sweep.tasks import Execute, Outcome, Task, Work


@dataclass
class Report:
    """What a run of a sweep did.

    Attributes:
        num_kept: scenarios whose result was there.
        num_computed: scenarios computed now.
        num_retried: of these, those whose process had died before.
        failures: scenarios without a result: key, what it was, why, attempts.
    """

    num_kept: int = 0
    num_computed: int = 0
    num_retried: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def run_missing(
    store: Store,
    tasks: Sequence[Task],
    work: Work,
    execute: Execute,
    about: Callable[[Task], dict[str, Any]],
    notify: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Run the tasks whose result a folder lacks, and keep each result as it comes.

    Args:
        store: the folder, opened.
        tasks: all of the sweep.
        work: what to do with one; its result maps figures to numbers.
        execute: who runs them.
        about: the columns that say what a task was.
        notify: told each outcome.

    Returns:
        What was done. KeyboardInterrupt passes through, with everything finished kept.
    """
    there = store.keys()
    missing = [task for task in tasks if task.key not in there]
    report = Report(num_kept=len(tasks) - len(missing))
    with closing(execute(work, missing)) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.error is None:
                store.add(outcome, about(outcome.task))
                report.num_computed += 1
                report.num_retried += outcome.num_attempts > 1
            else:
                why = {"scenario": outcome.task.key, **about(outcome.task), "error": outcome.error}
                report.failures.append({**why, "attempts": outcome.num_attempts})
            notify(outcome)
    store.write_failures(report.failures)
    return report
