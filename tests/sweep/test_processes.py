"""Tasks end once each, whatever happens to the processes that run them."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from infermax_gym.sweep import Outcome, Shared, StoreError, Task, run_in_processes
from infermax_gym.sweep.tasks import Execute, Work
from tests.sweep import work

WORK = Work(work.load, work.run)


def on_ray() -> Execute:
    pytest.importorskip("ray", reason="ray is not installed (pip install 'infermax-gym[ray]')")
    from functools import partial

    from infermax_gym.sweep.on_ray import run_on_ray

    return partial(run_on_ray, num_workers=2)


def tasks(arguments: list[str], shared: str = "common") -> list[Task]:
    return [Task(f"{i:032x}", argument, Shared(shared, shared)) for i, argument in enumerate(arguments)]


def check(outcomes: list[Outcome], arguments: list[str]) -> None:
    by_argument = {str(outcome.task.argument): outcome for outcome in outcomes}
    assert len(outcomes) == len(by_argument) == len(arguments)
    for argument, outcome in by_argument.items():
        if argument == "raises":
            assert outcome.error == "RuntimeError: cannot be scheduled" and outcome.num_attempts == 1
        elif argument == "dies":
            assert outcome.error is not None and outcome.num_attempts == 3
        else:
            assert outcome.error is None and outcome.value["shared"] == "common"
            assert outcome.num_attempts == (2 if argument.startswith("dies once") else 1)


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_failures_stay_alone(executor: str, tmp_path: Path) -> None:
    execute = on_ray() if executor == "ray" else lambda w, t: run_in_processes(w, t, num_workers=2)
    arguments = ["raises", "dies", f"dies once@{tmp_path / 'marker'}", *[f"slow {i}" for i in range(12)]]
    check(list(execute(WORK, tasks(arguments))), arguments)


def test_shared_data_that_cannot_be_made_fails_its_own_tasks() -> None:
    mixed = [*tasks(["a"]), *tasks(["b"], "unreadable")]
    errors = [outcome.error for outcome in run_in_processes(WORK, mixed, num_workers=1)]
    assert errors == [None, "ValueError: no such requests"]


def test_closing_ends_the_processes() -> None:
    import multiprocessing

    with closing(run_in_processes(WORK, tasks([f"slow {i}" for i in range(99)]), num_workers=2)) as outcomes:
        next(outcomes)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://[::1]:1", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_said_at_once(address: str) -> None:
    from infermax_gym.sweep.on_ray import run_on_ray

    with pytest.raises(StoreError, match=f"Ray cannot be reached at {re.escape(address)}"):
        next(run_on_ray(WORK, tasks(["a"]), address=address))
