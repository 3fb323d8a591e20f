"""Requests that come from another engine and go to one: the section "Moving"."""

from __future__ import annotations

from tests.reference.levels import start_level
from tests.reference.request import Request
from tests.reference.state import Engine

CARRIED = (
    "resident",
    "generated",
    "is_decode",
    "first_scheduled_s",
    "first_token_s",
    "last_token_s",
    "num_preemptions",
    "num_recomputed_tokens",
    "num_cached_tokens",
)
"""What a request takes along."""


def set_aside(engine: Engine, request: Request, num_blocks: int) -> None:
    """Keep a sequence and blocks for a request to come."""
    engine.B -= 1
    if engine.cache:
        engine.cache.tables[request.number] = []
        engine.cache.published[request.number] = 0
    request.held = 0
    engine.take(request, num_blocks)


def give_back(engine: Engine, request: Request) -> None:
    """It does not come."""
    engine.B += 1
    engine.release(request)


def attach(request: Request, guest: Request) -> None:
    """A request goes on as `guest`, which stands for it in another engine and has its blocks there."""
    for name in CARRIED:
        setattr(guest, name, getattr(request, name))
    guest.lands = True
    guest.status = "waiting"
    guest.prediction = guest.first_prediction
    guest.level, guest.level_run_s, guest.level_iterations = 0, 0.0, 0
    guest.level_place_s = guest.arrival_s
    guest.num_lost_tokens = 0


def land(engine: Engine, request: Request) -> None:
    """It joins the running list."""
    engine.B += 1
    request.lands = False
    start_level(engine, request)
    request.is_running = True
    engine.running.append(request)
    engine.publish(request, request.resident)
