"""`infermax bench --jobs`: the runs of a comparison on processes of this machine."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.evaluation import Contender, Run, Scenario, Served
    from infermax_gym.evaluation.details import Details
    from infermax_gym.workload import Workload


def runs_on_processes(
    scenario: Scenario,
    contenders: dict[str, Contender],
    num_seeds: int,
    jobs: int,
    details: dict[str, Details] | None = None,
) -> Iterator[Run]:
    """What `iterate_runs` yields, in the same order and with the same figures; only `wall_s` is another.

    Args:
        scenario: whose workload is a recipe; it goes to the processes.
        contenders: likewise.
        num_seeds: seeds 0 to num_seeds - 1.
        jobs: processes.
        details: where what pictures need of the first seed goes, by contender.

    Raises:
        InputError: a contender cannot be sent to another process, or its run failed there.
    """
    from infermax_gym.evaluation.warming import warm_up
    from infermax_gym.sweep import Shared, Task, run_in_processes
    from infermax_gym.sweep.tasks import Work

    for name, contender in contenders.items():
        try:
            pickle.dumps(contender)
        except Exception as error:  # whatever a class of somebody else's raises
            raise InputError(
                f"{name} cannot be sent to other processes ({type(error).__name__}); leave out --jobs"
            ) from None
    warm_up(contenders.values(), scenario.config, output.say_compiling)
    pictures = details is not None
    order = [(name, seed) for name in contenders for seed in range(num_seeds)]
    tasks = [
        Task(
            str(number),
            (scenario, name, contenders[name], seed, pictures),
            Shared(str(seed), (scenario, seed)),
        )
        for number, (name, seed) in sorted(enumerate(order), key=lambda one: one[1][1])  # requests are loaded once
    ]
    waiting: dict[int, Run] = {}
    following = 0
    with closing(run_in_processes(Work(load, run), tasks, num_workers=min(jobs, len(tasks)))) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.error is not None:
                raise InputError(f"{outcome.task.argument[1]}: {outcome.error}")
            waiting[int(outcome.task.key)], pictured_run = outcome.value
            if details is not None and pictured_run is not None:
                details[outcome.task.argument[1]] = pictured_run
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def load(recipe: tuple[Scenario, int]) -> Workload:
    """The requests of a seed."""
    scenario, seed = recipe
    return scenario.requests(seed)


def run(argument: tuple[Scenario, str, Any, int, bool], workload: Workload) -> tuple[Run, Details | None]:
    """One policy on one seed, and what pictures need of the first seed, where they are wanted."""
    from infermax_gym.baselines.predict import predictions
    from infermax_gym.evaluation import Run, run_contender
    from infermax_gym.evaluation.contenders import information_of
    from infermax_gym.evaluation.details import is_recorded

    scenario, name, contender, seed, wanted = argument
    watched = wanted and seed == 0
    recorded = watched and is_recorded(contender, workload)
    served = run_contender(
        contender, workload, scenario.config, seed=seed, predict=predictions, record_schedule=recorded
    )
    done = Run(name, information_of(contender), seed, served.figures(scenario.config, scenario.slo, scenario.by))
    return done, pictured(scenario, contender, workload, served) if watched else None


def pictured(scenario: Scenario, contender: Contender, workload: Workload, served: Served) -> Details:
    """What pictures need of a run on the first seed."""
    from infermax_gym.baselines.predict import predictions
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation import details_of

    lengths = predictions(contender, workload, 0) if isinstance(contender, Policy) else None
    return details_of(contender, served, workload, scenario.config, lengths)
