"""A server's iterations beside the simulator's: where they part, and how."""

from __future__ import annotations

from dataclasses import dataclass

from infermax_gym.engine import Iteration
from infermax_gym.workload.step_log import Step, Steps

Batch = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Parting:
    """The first iteration in which two schedules differ.

    Attributes:
        iteration: its number, from 0.
        why: what differs, in a line.
        real: (request, tokens) of the server; empty after its last iteration.
        simulated: the same of the simulator.
    """

    iteration: int
    why: str
    real: Batch
    simulated: Batch


def first_difference(steps: Steps, schedule: tuple[Iteration, ...]) -> Parting | None:
    """Where a log's schedule and a simulated one part; None if they are the same. Times are not compared.

    Args:
        steps: the log. Requests are named by their place in its workload; those that did not finish, by -1.
        schedule: of a run of that workload.
    """
    places = {int(number): place for place, number in enumerate(steps.numbers)}
    for i in range(max(len(steps.steps), len(schedule))):
        real = _members(steps.steps[i], places) if i < len(steps.steps) else ()
        simulated = schedule[i].batch if i < len(schedule) else ()
        gone = tuple(places.get(r, -1) for r in steps.steps[i].preempted) if i < len(steps.steps) else ()
        simulated_gone = schedule[i].preempted if i < len(schedule) else ()
        if real != simulated or gone != simulated_gone:
            return Parting(i, _why(real, simulated, gone, simulated_gone), real, simulated)
    return None


def _members(step: Step, places: dict[int, int]) -> Batch:
    return tuple((places.get(r, -1), tokens) for r, tokens, _, _ in step.batch)


def _why(real: Batch, simulated: Batch, gone: tuple[int, ...], simulated_gone: tuple[int, ...]) -> str:
    if not real or not simulated:
        return f"only the {'server' if real else 'simulator'} has another iteration"
    if gone != simulated_gone:
        return f"the server preempted {_names(gone)}, the simulator {_names(simulated_gone)}"
    only_real = [r for r, _ in real if r not in dict(simulated)]
    only_simulated = [r for r, _ in simulated if r not in dict(real)]
    if only_real or only_simulated:
        return f"only the server serves {_names(only_real)}, only the simulator {_names(only_simulated)}"
    if dict(real) != dict(simulated):
        r = next(r for r, tokens in real if dict(simulated)[r] != tokens)
        return f"request {r} gets {dict(real)[r]} tokens from the server, {dict(simulated)[r]} from the simulator"
    return "the same members in another order"


def _names(requests: list[int] | tuple[int, ...]) -> str:
    if not requests:
        return "nobody"
    shown = ", ".join(map(str, requests[:8]))
    return f"request{'s' if len(requests) > 1 else ''} {shown}{' and more' if len(requests) > 8 else ''}"
