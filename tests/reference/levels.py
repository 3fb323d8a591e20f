"""Levels: the paragraph of that name."""

from __future__ import annotations

from tests.reference.request import Request
from tests.reference.state import Engine


def _quantum_s(engine: Engine, level: int) -> float:
    quantum_s = engine.policy.quantum_s
    for _ in range(level):
        quantum_s *= engine.policy.quantum_growth
    return quantum_s


def start_level(engine: Engine, request: Request) -> None:
    """The first level whose quantum holds the prefill, or the last."""
    if engine.policy.skip_join:
        prefill_s = engine.duration.of_prefill(request.num_prompt_tokens)
        levels = range(engine.policy.mlfq_levels - 1)
        holding = (level for level in levels if _quantum_s(engine, level) >= prefill_s)
        request.level = next(holding, engine.policy.mlfq_levels - 1)


def _move(engine: Engine, request: Request, level: int) -> None:
    """To the front of a level."""
    request.level = level
    request.level_run_s = 0.0
    request.level_iterations = 0
    request.level_place_s = -engine.clock_s


def sink(engine: Engine, batch: dict[Request, int], duration_s: float) -> None:
    """Members of a batch use up their quanta."""
    policy = engine.policy
    for request in batch:
        request.level_run_s += duration_s
        request.level_iterations += 1
        over = policy.quantum_s > 0.0 and request.level_run_s > _quantum_s(engine, request.level)
        over |= 0 < policy.quantum_iterations <= request.level_iterations
        if over and request.level != policy.mlfq_levels - 1:
            _move(engine, request, request.level + 1)


def lift_starving(engine: Engine) -> None:
    """Whoever has waited too long moves to level -1."""
    policy = engine.policy
    if engine.num_iterations % policy.starvation_every != 0:
        return
    for request in engine.queue:
        starves = policy.starvation_s > 0.0 and request.waiting_since_s + policy.starvation_s <= engine.clock_s
        waited = engine.num_iterations - request.waiting_since_iteration
        starves |= 0 < policy.starvation_iterations <= waited
        if request.level >= 0 and starves:
            _move(engine, request, -1)
            engine.queue.rekey(request)
