"""Every numbered invariant notices its own kind of damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, InvariantChecker, InvariantError
from infermax_gym.engine.kernel.check import all_in_order
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.run import run
from infermax_gym.engine.layout import FINISHED, RUNNING, WAITING
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload

CONFIG = EngineConfig(num_kv_tokens=96, block_size=4, max_num_batched_tokens=16)


def running_engine() -> tuple[Engine, InvariantChecker]:
    """An engine in the middle of a run: some finished, some running, some waiting, one rejected, one to come."""
    workload = Workload([0, 0, 0, 0, 0, 0, 900], [6, 200, 12, 20, 30, 40, 8], [2, 5, 9, 20, 20, 20, 3])
    engine = allocate(workload, CONFIG, POLICIES["sarathi"])
    checker = InvariantChecker(engine)
    for _ in range(4):
        run(engine.core, 1, np.inf, False)
        checker.after_iteration()
    disband(engine.core)
    core = engine.record[0]
    counts = [int(core[name]) for name in ("num_finished", "num_rejected", "num_running", "num_waiting")]
    assert counts == [1, 1, 3, 1]
    assert core["num_running_prefills"] == 1
    return engine, checker


def one(engine: Engine, place: int, in_prefill: int | None = None) -> Any:
    """The first request in a place."""
    for request in engine.requests:
        if request["place"] == place and in_prefill in (None, request["in_prefill"]):
            return request
    raise AssertionError("no such request")


def change(name: str, by: float, place: int | None = None, in_prefill: int | None = None) -> Callable[[Engine], None]:
    """Add to a field of the engine, or of the first request in a place."""

    def damage(engine: Engine) -> None:
        target = engine.record[0] if place is None else one(engine, place, in_prefill)
        target[name] += by

    return damage


def run_twice(engine: Engine) -> None:
    engine.arrays["run"][1] = engine.arrays["run"][0]


def lose_a_block_of_a_running_request(engine: Engine) -> None:
    one(engine, RUNNING)["held"] -= 1
    engine.record["free_blocks"] += 1


def give_a_block_to_a_waiting_request(engine: Engine) -> None:
    one(engine, WAITING)["held"] += 1
    engine.record["free_blocks"] -= 1


DAMAGES = [
    (1, "a waiting request too many", change("num_waiting", 1)),
    (1, "a finished request too few", change("num_finished", -1)),
    (1, "a request that is nowhere", change("place", -FINISHED, FINISHED)),
    (1, "somebody runs twice", run_twice),
    (1, "a running prefill too many", change("num_running_prefills", 1)),
    (1, "a waiting token too many", change("waiting_tokens", 1)),
    (1, "a first token that never was", change("num_unstarted", -1)),
    (1, "an arrival that never came", change("next_arrival", 1)),
    (2, "a block from nowhere", change("free_blocks", 1)),
    (2, "a withheld block from nowhere", change("withheld_blocks", 1)),
    (3, "the clock goes back", change("clock_s", -1e-6)),
    (4, "a running request without its block", lose_a_block_of_a_running_request),
    (4, "a waiting request with a block", give_a_block_to_a_waiting_request),
    (5, "a token too many", change("generated", 1, FINISHED)),
    (5, "computed beyond what is known", change("computed", 3, WAITING)),
    (5, "finished before it began", change("finish_s", -1e6, FINISHED)),
    (6, "more running than sequences", change("max_num_seqs", -6)),
    (7, "recomputed tokens from nowhere", change("num_recomputed", 1)),
    (7, "computed tokens from nowhere", change("computed", 1, RUNNING, 1)),
    (8, "a decode that lacks two tokens", change("computed", -1, RUNNING, 0)),
]


@pytest.mark.parametrize(("number", "what", "damage"), DAMAGES, ids=[f"{d[0]}-{d[1]}" for d in DAMAGES])
def test_damage_between_iterations(number: int, what: str, damage: Callable[[Engine], None]) -> None:
    engine, checker = running_engine()
    checker.check_now()
    if what == "computed beyond what is known":
        one(engine, WAITING)["computed"] = one(engine, WAITING)["prompt"]
    if what == "more running than sequences":
        checker.last_running = 0  # they have joined since
    damage(engine)
    with pytest.raises(InvariantError, match=f"^invariant {number} broken at .* s: "):
        checker.check_now()


def test_running_on_finds_damage() -> None:
    """The compiled loop says that something is wrong, and the checker in Python what."""
    engine, checker = running_engine()
    change("free_blocks", 1)(engine)
    with pytest.raises(InvariantError, match=r"^invariant 2 broken at .* s: "):
        checker.run()


def test_seats_may_be_taken_away() -> None:
    """Whoever steers an engine may lower its cap: nobody has to go, but nobody may join."""
    engine, checker = running_engine()
    checker.check_now()
    change("max_num_seqs", -6)(engine)
    checker.check_now()


def test_the_quick_look_is_enough_where_all_is_well() -> None:
    engine, checker = running_engine()
    assert all_in_order(engine.core, checker.granted, checker.last_clock_s, 0)
    assert not all_in_order(engine.core, checker.granted + 1, checker.last_clock_s, 0)


def test_an_iteration_above_its_budget() -> None:
    engine, checker = running_engine()
    engine.record["num_tokens"] = CONFIG.max_num_batched_tokens + 1
    with pytest.raises(InvariantError, match=r"invariant 6 broken .* 17 tokens in an iteration"):
        checker.after_iteration()


def test_an_iteration_nobody_accounts_for() -> None:
    engine, checker = running_engine()
    assert engine.record["num_tokens"][0] > 0
    with pytest.raises(InvariantError, match="invariant 7"):
        checker.after_iteration()


def test_no_progress() -> None:
    engine, checker = running_engine()
    engine.record["stalled_iterations"] = 128 + 4 * 96 + 1
    with pytest.raises(InvariantError, match=r"invariant 9 broken .* iterations without an output token"):
        checker.after_iteration()


def test_every_number_has_its_damage() -> None:
    import infermax_gym.engine.invariants as module

    numbers = {int(line.split(".")[0]) for line in str(module.__doc__).splitlines() if line[:1].isdigit()}
    assert numbers == {number for number, _, _ in DAMAGES} | {9, 10}


def caching_engine() -> Engine:
    """An engine whose prefix cache holds what two share, what one has alone, and what nobody holds."""
    prefixes = {"prefix_blocks": [1, 1, 2, 1], "prefix_start": [0, 1, 3, 4], "prefix_block_size": 8}
    workload = Workload([0.0, 0.001, 0.002], [8, 16, 12], [1, 30, 30], **prefixes)
    engine = allocate(workload, replace(CONFIG, prefix_caching=True), POLICIES["sarathi"])
    run(engine.core, 6, np.inf, False)
    assert engine.record["num_running"][0] == 2 and engine.record["num_cached"][0] == 16
    return engine


def deepest(engine: Engine) -> Any:
    """The node with the most blocks present."""
    return engine.arrays["nodes"][np.argmax(engine.arrays["nodes"]["present"])]


def forget_a_holder(engine: Engine) -> None:
    segments = engine.arrays["segments"]
    segments["refs"][np.argmax(segments["refs"])] -= 1


CACHE_DAMAGES = [
    ("a block that is not there", lambda engine: deepest(engine).__setitem__("present", 1)),
    ("a holder is forgotten", forget_a_holder),
    ("a published block too many", lambda engine: engine.arrays["holds"]["depth"].__iadd__(1)),
    ("a queued block from nowhere", lambda engine: engine.arrays["segments"]["size"].__iadd__(1)),
]


@pytest.mark.parametrize(("what", "damage"), CACHE_DAMAGES, ids=[what for what, _ in CACHE_DAMAGES])
def test_damage_to_the_prefix_cache(what: str, damage: Callable[[Engine], None]) -> None:
    engine = caching_engine()
    checker = InvariantChecker(engine)
    checker.check_now()
    damage(engine)
    with pytest.raises(InvariantError, match=r"invariant 10 broken at .* s: "):
        checker.check_now()


def test_a_checker_may_join_a_run() -> None:
    """One that begins in the middle knows what was granted before."""
    engine, _ = running_engine()
    late = InvariantChecker(engine)
    late.check_now()
    for _ in range(5):
        run(engine.core, 1, np.inf, False)
        late.after_iteration()
