"""An agent serves a test episode: what it decided, and what that costs.

Agents come in four kinds. A policy of the table, a scheduler in Python and a trained agent serve the requests of the
episode on its engine and are told what their information class says. A function from observations to actions steps the
task's environment and sees nothing else. A router of the table, or such a function, chooses replicas.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.agent import Agent
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan, Step, plan_of_run
from infermax_gym.cluster import Router
from infermax_gym.engine import Decision, Information, Player, Policy, SimulationResult
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.envs.routing.teacher import RouterTeacher
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.evaluation.contenders import Contender, serve
from infermax_gym.evaluation.fleets import FleetContender
from infermax_gym.streams import stream
from infermax_gym.suite.decisions import pack_choices, pack_plan
from infermax_gym.suite.env import RecordingEnv
from infermax_gym.suite.episodes import config_of, episode_of
from infermax_gym.suite.tasks import SuiteError, Task, Variant

Act = Callable[[Any, NDArray[np.bool_]], int]
"""Decides in a task's environment: a Dict observation and (A,) which actions are legal, to an action."""


@dataclass(frozen=True)
class ActingAgent:
    """A function that plays the tasks' environments.

    Attributes:
        name: for tables.
        act: what it does; a new one is made for each episode by `begin` if that is given.
        begin: makes `act` from the seed of an episode.
    """

    name: str
    act: Act | None = None
    begin: Callable[[int], Act] | None = None

    def for_episode(self, seed: int) -> Act:
        """What decides in an episode."""
        act = self.begin(seed) if self.begin is not None else self.act
        if act is None:
            raise SuiteError(f"agent {self.name!r} has neither act nor begin")
        return act


SuiteAgent = Contender | Router | ActingAgent


@dataclass(frozen=True)
class Played:
    """An episode that was served.

    Attributes:
        objective: the task's figure, less is better.
        decisions: packed.
    """

    objective: float
    decisions: str


def can_play(agent: SuiteAgent, task: Task) -> bool:
    """Whether an agent is made for a task: routers route, schedulers schedule, functions do either."""
    return isinstance(agent, ActingAgent) or isinstance(agent, Router) == task.is_fleet


def check_rules(agent: SuiteAgent, task: Task) -> None:
    """Whether an agent gets along with what a task tells, and with its engine.

    Raises:
        SuiteError: it needs output lengths, true ones or predictions, sees whole workloads, or has a token budget of
            its own.
    """
    if isinstance(agent, Policy) and (agent.max_num_batched_tokens is not None or not agent.chunking):
        raise SuiteError(
            f"policy {agent.name!r} plays on another engine: its token budget, or prompts that it does not cut, may "
            f"exceed the budget of {task.id}"
        )
    if isinstance(agent, Player) and not _is_ours(type(agent)):
        raise SuiteError(
            f"{getattr(agent, 'name', agent)!r} serves whole workloads by itself and so has their output lengths; "
            "expected a scheduler with decide(view), or a function (observation, mask) -> action"
        )
    known = information_of(agent)
    if known in (Information.ORACLE, Information.PREDICTED):
        raise SuiteError(
            f"{task.id} tells nothing of output lengths; {agent.name!r} needs them "  # type: ignore[union-attr]
            f"(information {known.name.lower()}; expected none or bound)"
        )


def information_of(agent: SuiteAgent) -> Information:
    """What an agent says it knows of output lengths."""
    return Information(getattr(agent, "information", Information.NONE))


def _is_ours(kind: type) -> bool:
    """Whether a class is where its module says, in this package: anybody can write a module's name into a class."""
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return kind.__module__.startswith("infermax_gym.") and found is kind


@dataclass(frozen=True)
class _Online:
    """A scheduler in Python that is told what it declared once, whatever it declares later."""

    name: str
    information: Information
    decide: Callable[[Any], Decision]


def play_episode(agent: SuiteAgent, task: Task, variant: Variant, seed: int) -> Played:
    """Serve one test episode.

    Raises:
        SuiteError: not every request was finished, a decision is none, or the agent knows more than the task tells.
    """
    check_rules(agent, task)
    if task.is_fleet:
        return _route(agent, task, variant, seed)
    result = _served(_within_the_budget(agent), task, variant, seed)
    episode = episode_of(task, variant, seed)
    instance = Instance.from_workload(episode.workload, episode.engine)
    return Played(objective_of(task, result), pack_plan(_with_tokens(plan_of_run(instance, result))))


def _within_the_budget(agent: SuiteAgent) -> SuiteAgent:
    """A selector plays without policies that do not cut prompts, see `check_rules`."""
    if not isinstance(agent, Agent) or agent.selector is None:
        return agent
    selector = agent.selector
    kept = [i for i, expert in enumerate(selector.experts) if expert.base.chunking]
    if not kept:
        raise SuiteError(
            f"agent {agent.name!r} has only policies that do not cut prompts, which the tasks do not allow"
        )
    return replace(agent, selector=selector.among(kept))


def _with_tokens(plan: Plan) -> Plan:
    """The plan without preemptions of requests that have got no token since their admission: they lose nothing."""
    resident: set[int] = set()
    steps = []
    for step in plan.steps:
        steps.append(Step(step.batch, tuple(r for r in step.preempted if r in resident)))
        resident -= set(step.preempted)
        resident |= {r for r, _ in step.batch}
    return Plan(tuple(steps))


def objective_of(task: Task, result: SimulationResult) -> float:
    """The figure of a run: the mean latency in seconds, or the share of requests that miss a limit.

    Raises:
        SuiteError: a request was not finished.
    """
    if not result.finished.all():
        raise SuiteError(f"{task.id}: {int((~result.finished).sum())} requests were not finished")
    if task.objective == "latency":
        return float(result.latency_s.mean())
    limits = result.workload
    with np.errstate(invalid="ignore"):
        missed = (result.ttft_s > limits.ttft_slo_s) | (result.tpot_s > limits.tpot_slo_s)
    return float(missed.mean())


def _served(agent: SuiteAgent, task: Task, variant: Variant, seed: int) -> SimulationResult:
    if isinstance(agent, ActingAgent):
        config = config_of(task)
        assert isinstance(config, EnvConfig)
        env = RecordingEnv(config)
        _act_out(env, agent.for_episode(seed), seed, task.options(variant))
        return env.result()
    assert not isinstance(agent, Router)
    if not isinstance(agent, Policy | Player | FleetContender):
        known = Information.BOUND if information_of(agent) == Information.BOUND else Information.NONE
        agent = _Online(str(agent.name), known, agent.decide)
    episode = episode_of(task, variant, seed)
    return serve(agent, episode.workload, episode.engine, seed=seed, record_schedule=True)


def _route(agent: SuiteAgent, task: Task, variant: Variant, seed: int) -> Played:
    config = config_of(task)
    assert isinstance(config, RouterEnvConfig)
    env = InferMaxRouterEnv(config)
    if isinstance(agent, Router):
        teacher = RouterTeacher(agent)
        act: Act = lambda _observation, _mask: teacher.action(env.run)  # noqa: E731
    elif isinstance(agent, ActingAgent):
        act = agent.for_episode(seed)
    else:
        raise SuiteError(f"{task.id} is for routers")
    choices = _act_out(env, act, seed, task.options(variant))
    return Played(fleet_objective(task, env), pack_choices(choices))


def fleet_objective(task: Task, env: InferMaxRouterEnv) -> float:
    """The figure of a fleet's episode that is over."""
    return objective_of(task, env.run.fleet.result(keep=True).pooled)


def _act_out(env: RecordingEnv | InferMaxRouterEnv, act: Act, seed: int, options: dict[str, Any]) -> list[int]:
    observation, _ = env.reset(seed=seed, options=options)
    actions: list[int] = []
    over = False
    while not over:
        mask = env.action_masks()
        action = int(act(observation, mask))
        if not (0 <= action < mask.size and mask[action]):
            action = int(mask.argmax())
        observation, _, over, _, _ = env.step(action)
        actions.append(action)
    return actions


def random_agent() -> ActingAgent:
    """Any legal action alike."""

    def begin(seed: int) -> Act:
        rng = stream(seed, "exploration")
        return lambda _observation, mask: int(rng.choice(np.flatnonzero(mask)))

    return ActingAgent("random", begin=begin)
