"""`Plan`: a schedule as data, how it is replayed, and what it then costs.

A plan is a list of steps, one per decision of the engine. A step first preempts some requests (their KV is dropped)
and then runs a batch of (request, tokens) pairs. Whoever is resident and neither preempted nor in the batch is held:
it idles and keeps its KV. A step with an empty batch waits for the next arrival; waiting is only a step while some
request is waiting or resident, since an engine without work jumps to the next arrival by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.engine import Decision, Information, SchedulerError, SimulationResult, simulate

Batch = tuple[tuple[int, int], ...]


class PlanError(ValueError):
    """A plan breaks a rule of the engine; the message says where."""


@dataclass(frozen=True)
class Step:
    """One decision.

    Attributes:
        batch: (request, tokens) pairs; empty to wait for the next arrival.
        preempted: requests whose KV is dropped first. One that is in the batch as well starts its prefill anew.
    """

    batch: Batch
    preempted: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A complete schedule: the decisions in order, until every request is finished."""

    steps: tuple[Step, ...]

    def schedule(self) -> list[list[list[int]]]:
        """The batches in the format of `infermax optimal --json`."""
        return [[[r, c] for r, c in step.batch] for step in self.steps]

    def preemptions(self) -> list[list[int]]:
        """The preempted requests of each step, beside `schedule`."""
        return [list(step.preempted) for step in self.steps]

    @classmethod
    def from_lists(cls, schedule: Sequence[Any], preempted: Sequence[Any] | None = None) -> Plan:
        """The inverse of `schedule` and `preemptions`."""
        victims = [()] * len(schedule) if preempted is None else preempted
        return cls(
            tuple(
                Step(tuple((int(r), int(c)) for r, c in batch), tuple(int(v) for v in gone))
                for batch, gone in zip(schedule, victims, strict=True)
            )
        )


@dataclass(frozen=True)
class Score:
    """What a plan costs.

    Attributes:
        makespan_s: end of the last iteration, seconds.
        latency_s: mean over requests of finish - arrival, seconds.
        num_preemptions: requests that lost their KV, counted every time.
    """

    makespan_s: float
    latency_s: float
    num_preemptions: int

    def objective(self, name: str) -> float:
        """The makespan or the mean latency, seconds."""
        return self.makespan_s if name == "makespan" else self.latency_s


class PlanScheduler:
    """A plan as a scheduler of the engine."""

    name = "plan"
    information = Information.ORACLE

    def __init__(self, plan: Plan) -> None:
        self._steps = iter(plan.steps)

    def decide(self, view: Any) -> Decision:
        """The next step of the plan, whatever the engine's state."""
        step = next(self._steps, None)
        if step is None:
            raise PlanError(f"the plan ends at {view.clock_s:.6g} s, before all requests are finished")
        return Decision(step.batch, step.preempted)

    @property
    def is_used_up(self) -> bool:
        """Whether every step has been taken."""
        return next(self._steps, None) is None


def simulate_plan(instance: Instance, plan: Plan, record_schedule: bool = False) -> SimulationResult:
    """Run a plan through the engine.

    Raises:
        PlanError: the plan breaks a rule of the engine, is too short or too long, or breaks a limit on the time
            to first token.
    """
    scheduler = PlanScheduler(plan)
    try:
        result = simulate(instance.workload(), instance.engine(), scheduler, record_schedule=record_schedule)
    except SchedulerError as error:
        raise PlanError(str(error)) from None
    if not scheduler.is_used_up:
        raise PlanError("the plan goes on after all requests are finished")
    arrival = np.array([r.arrival_s for r in instance.requests])
    late = result.first_token_s - arrival > np.array([r.ttft_limit_s for r in instance.requests])
    if late.any():
        raise PlanError(f"request {int(np.flatnonzero(late)[0])} gets its first token after its limit")
    return result


def score(instance: Instance, plan: Plan) -> Score:
    """What a plan costs, by the engine.

    Raises:
        PlanError: see `simulate_plan`.
    """
    result = simulate_plan(instance, plan)
    arrival = np.array([r.arrival_s for r in instance.requests])
    return Score(float(result.makespan_s), float(np.mean(result.finish_s - arrival)), int(result.num_preemptions))


@dataclass(frozen=True)
class Pass:
    """What the requests do in one iteration, as a search knows it.

    Attributes:
        not_before_s: the iteration does not begin before this clock.
        batch: (request, tokens) pairs.
        fresh: requests of the batch whose prefill starts anew, from no KV.
        held: requests outside of the batch that keep their KV.
    """

    not_before_s: float
    batch: Batch
    fresh: frozenset[int]
    held: frozenset[int]


def assemble(instance: Instance, passes: Iterable[Pass]) -> Plan:
    """The plan that carries out some iterations: adds who is preempted when, and the waits."""
    clock = _Clock(instance)
    steps: list[Step] = []
    for p in passes:
        steps += [Step(())] * clock.wait_until(p.not_before_s)
        keeps = ({r for r, _ in p.batch} - p.fresh) | p.held
        gone = [r for r, tokens in enumerate(clock.resident) if tokens > 0 and r not in keeps]
        steps.append(Step(p.batch, tuple(gone)))
        clock.run(p.batch, gone)
    return Plan(tuple(steps))


def plan_of_run(instance: Instance, run: SimulationResult) -> Plan:
    """The plan that repeats a run of the instance whose schedule was recorded.

    Raises:
        ValueError: the run has no schedule.
    """
    if run.schedule is None:
        raise ValueError("the run has no schedule; simulate with record_schedule=True")
    clock = _Clock(instance)
    steps: list[Step] = []
    for iteration in run.schedule:
        steps += [Step(())] * clock.wait_until(iteration.start_s)
        steps.append(Step(iteration.batch, iteration.preempted))
        clock.run(iteration.batch, iteration.preempted)
    return Plan(tuple(steps))


class _Clock:
    """Follows the engine's clock, as far as waits depend on it."""

    def __init__(self, instance: Instance) -> None:
        self.core = 0.0
        self.cost = instance.cost
        self.arrivals = sorted({r.arrival_s for r in instance.requests})
        self.requests = instance.requests
        self.resident = [0] * len(instance)
        self.generated = [0] * len(instance)
        self.decoding = [False] * len(instance)

    def wait_until(self, start_s: float) -> int:
        """Go to the arrival at `start_s` if it is still to come; returns how many decisions that takes."""
        if start_s <= self.core:
            return 0
        ahead = [a for a in self.arrivals if self.core < a < start_s]
        busy = any(
            r.arrival_s <= self.core and g < r.num_output_tokens
            for r, g in zip(self.requests, self.generated, strict=True)
        )
        self.core = start_s
        return len(ahead) + busy

    def run(self, batch: Batch, preempted: Iterable[int]) -> None:
        """Carry out an iteration."""
        for r in preempted:
            self.resident[r], self.decoding[r] = 0, False
        decodes = [self.resident[r] for r, _ in batch if self.decoding[r]]
        prefills = [(c, self.resident[r]) for r, c in batch if not self.decoding[r]]
        self.core += self.cost.seconds(prefills, decodes)
        for r, c in batch:
            self.resident[r] += c
            if self.resident[r] == self.requests[r].num_prompt_tokens + self.generated[r]:
                self.generated[r] += 1
                self.decoding[r] = True
            if self.generated[r] == self.requests[r].num_output_tokens:
                self.resident[r] = 0
