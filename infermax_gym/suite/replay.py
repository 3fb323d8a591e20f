"""Decisions, carried out again by the engine: nobody's word is taken for a score."""

from __future__ import annotations

from infermax_gym.baselines.optimum.plan import PlanError, PlanScheduler
from infermax_gym.engine import SchedulerError, simulate
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.suite.decisions import unpack_choices, unpack_plan
from infermax_gym.suite.episodes import config_of, episode_of
from infermax_gym.suite.play import fleet_objective, objective_of
from infermax_gym.suite.tasks import SuiteError, Task, Variant

_STEPS_PER_TOKEN = 4
"""Iterations per output token and request; agents take one at most, and more would keep whoever certifies for days."""


def replay(task: Task, variant: Variant, seed: int, decisions: str) -> float:
    """The objective that packed decisions reach in a test episode.

    Raises:
        SuiteError: they break a rule of the engine, end early or go on for too long; one line.
    """
    where = f"{task.id}, seed {seed}"
    try:
        return _fleet(task, variant, seed, decisions) if task.is_fleet else _engine(task, variant, seed, decisions)
    except (SchedulerError, PlanError, SuiteError) as error:
        raise SuiteError(f"{where}: {' '.join(str(error).split())}") from None


def _engine(task: Task, variant: Variant, seed: int, decisions: str) -> float:
    episode = episode_of(task, variant, seed)
    workload = episode.workload
    most_steps = _STEPS_PER_TOKEN * (int(workload.num_output_tokens.sum()) + len(workload))
    plan = unpack_plan(decisions, len(workload), most_steps)
    scheduler = PlanScheduler(plan)
    result = simulate(workload, episode.engine, scheduler)
    if not scheduler.is_used_up:
        raise SuiteError("decisions go on after all requests are finished")
    return objective_of(task, result)


def _fleet(task: Task, variant: Variant, seed: int, decisions: str) -> float:
    config = config_of(task)
    assert isinstance(config, RouterEnvConfig)
    env = InferMaxRouterEnv(config)
    env.reset(seed=seed, options=task.options(variant))
    over = False
    choices = unpack_choices(decisions)
    for i, choice in enumerate(choices):
        if over:
            raise SuiteError("decisions go on after all requests are routed")
        if not (choice < config.num_replicas and env.action_masks()[choice]):
            raise SuiteError(f"decision {i} sends a request to replica {choice}, which cannot hold it")
        _, _, over, _, _ = env.step(choice)
    if not over:
        raise SuiteError(f"decisions end after {len(choices)} requests, before all are routed")
    return fleet_objective(task, env)
