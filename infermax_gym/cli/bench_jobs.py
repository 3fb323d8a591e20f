"""`infermax bench --jobs`: the runs of a comparison on processes of this machine."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.evaluation import Contender, Run, Scenario
    from infermax_gym.workload import Workload


def runs_on_processes(scenario: Scenario, contenders: dict[str, Contender], num_seeds: int, jobs: int) -> Iterator[Run]:
    """What `iterate_runs` yields, in the same order and with the same figures; only `wall_s` is another.

    Args:
        scenario: whose workload is a recipe; it goes to the processes.
        contenders: likewise.
        num_seeds: seeds 0 to num_seeds - 1.
        jobs: processes.

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
    order = [(name, seed) for name in contenders for seed in range(num_seeds)]
    tasks = [
        Task(str(number), (scenario, name, contenders[name], seed), Shared(str(seed), (scenario, seed)))
        for number, (name, seed) in sorted(enumerate(order), key=lambda one: one[1][1])  # requests are loaded once
    ]
    waiting: dict[int, Run] = {}
    following = 0
    with closing(run_in_processes(Work(load, run), tasks, num_workers=min(jobs, len(tasks)))) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.error is not None:
                raise InputError(f"{outcome.task.argument[1]}: {outcome.error}")
            waiting[int(outcome.task.key)] = outcome.value
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def load(recipe: tuple[Scenario, int]) -> Workload:
    """The requests of a seed."""
    scenario, seed = recipe
    return scenario.requests(seed)


def run(argument: tuple[Scenario, str, Any, int], workload: Workload) -> Run:
    """One policy on one seed."""
    from infermax_gym.baselines.predict import predictions
    from infermax_gym.evaluation import Run, run_contender
    from infermax_gym.evaluation.contenders import information_of

    scenario, name, contender, seed = argument
    served = run_contender(contender, workload, scenario.config, seed=seed, predict=predictions)
    return Run(name, information_of(contender), seed, served.figures(scenario.config, scenario.slo, scenario.by))
