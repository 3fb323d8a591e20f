"""What the slots show and which actions are legal, against a plain search of the whole queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.layout import RUNNING, WAITING
from infermax_gym.engine.policy import QueueOrder, Reserve, Victim, victim_weights
from infermax_gym.envs.scheduling.config import BASE
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.lane import ADMITTED
from infermax_gym.envs.scheduling.layout import RUNNING_FEATURES, WAITING_FEATURES, ActionLayout, Kind
from infermax_gym.testing import random_legal
from tests.envs.playing import small_workload, tight_env

BASES = {
    "default": BASE,
    "first come": replace(BASE, queue_order=QueueOrder.FIFO),
    "newest victim": replace(BASE, victim_weights=victim_weights(arrival_s=1.0)),
    "fewest processed": replace(BASE, victim=Victim.LIST_TAIL),
    "first chunk": replace(BASE, reserve=Reserve.CHUNK),
}


def check_waiting(req: Any, shown: list[int], num_slots: int) -> None:
    """The smallest keys in order (whoever of those with the same), the head first; then the oldest of the others."""
    waiting = [int(r) for r in np.flatnonzero(req["place"] == WAITING)]
    by_key = sorted(waiting, key=lambda r: (req["key"][r], r))[: (num_slots + 1) // 2]
    best, others = shown[: len(by_key)], shown[len(by_key) :]
    assert req["key"][best].tolist() == req["key"][by_key].tolist()
    assert best[:1] == by_key[:1] and len(set(best)) == len(best) and set(best) <= set(waiting)
    assert others == [r for r in waiting if r not in best][: num_slots - len(best)]


def expected_running(env: InferMaxEnv, req: Any, order: Any, num_slots: int) -> list[int]:
    free = [p for p in range(len(order)) if not req["touched"][order[p]] & ADMITTED]
    shown = free[::-1][: (num_slots + 1) // 2]
    older = free[: len(free) - len(shown)]
    core = env.run.engine.record[0]
    processed = lambda q: float(q["computed"] + (0 if q["in_prefill"] else 1))  # noqa: E731
    if core["victim"] == Victim.KEY:
        weights = core["victim_weights"]
        names = {0: lambda q: q["arrival_s"], 2: processed}
        score = lambda q: -sum(weights[i] * feature(q) for i, feature in names.items())  # noqa: E731
    else:
        score = processed
    shown += sorted(older, key=lambda p: (score(req[order[p]]), p))[: num_slots - len(shown)]
    admitted = [p for p in range(len(order) - 1, -1, -1) if req["touched"][order[p]] & ADMITTED]
    return (shown + admitted)[:num_slots]


def check_slots(env: InferMaxEnv, observation: dict[str, Any]) -> None:
    engine = env.run.engine.copy()
    disband(engine.core)
    req, core = engine.requests, engine.record[0]
    order = engine.arrays["run"][: int(core["num_running"])]
    w, r = env.layout.num_waiting_slots, env.layout.num_running_slots
    waiting, running = env.run.lane.slots[:w], env.run.lane.slots[w:]
    num_shown = int((waiting >= 0).sum())
    assert (waiting[num_shown:] == -1).all()
    check_waiting(req, waiting[:num_shown].tolist(), w)
    expected = expected_running(env, req, order, r)
    assert running.tolist() == expected + [-1] * (r - len(expected))
    assert observation["waiting"][:, 0].tolist() == [float(slot >= 0) for slot in waiting]
    assert observation["running"][:, 0].tolist() == [float(slot >= 0) for slot in running]
    assert (observation["waiting"][waiting < 0] == 0.0).all()
    assert (observation["running"][running < 0] == 0.0).all()
    check_features(observation, req, core, waiting, [int(order[p]) for p in running if p >= 0])


def check_features(observation: dict[str, Any], req: Any, core: Any, waiting: Any, running: list[int]) -> None:
    """A few columns by hand; the others are shares of the same numbers."""
    known, generated = WAITING_FEATURES.index("known_tokens"), WAITING_FEATURES.index("generated_tokens")
    for slot in np.flatnonzero(waiting >= 0):
        q, row = req[waiting[slot]], observation["waiting"][slot]
        tokens = float(q["prompt"] + q["generated"])
        assert row[known] == np.float32(tokens / (tokens + 1000.0))
        assert row[generated] == np.float32(q["generated"] / (q["generated"] + 100.0))
        check_runway(row, core)
    held, phase = RUNNING_FEATURES.index("held_blocks"), RUNNING_FEATURES.index("is_prefill")
    age = RUNNING_FEATURES.index("age")
    for slot, request in enumerate(running):
        q, row = req[request], observation["running"][slot]
        assert q["place"] == RUNNING
        assert row[held] == pytest.approx(q["held"] / core["num_blocks"], rel=1e-6)
        assert row[phase] == q["in_prefill"]
        waited_s = float(core["clock_s"] - q["arrival_s"])
        assert row[age] == pytest.approx(waited_s / (waited_s + 10.0), rel=1e-5, abs=1e-7)


def check_runway(row: Any, core: Any) -> None:
    """Free tokens after the admission, shared among all who then run."""
    spare_tokens = row[WAITING_FEATURES.index("spare_blocks")] * core["num_blocks"] * core["block_size"]
    iterations = float(spare_tokens) / (float(core["num_running"]) + 1.0)
    runway = row[WAITING_FEATURES.index("runway")]
    assert runway == pytest.approx(iterations / (abs(iterations) + 50.0), rel=1e-4, abs=1e-6)


def check_mask(env: InferMaxEnv, mask: Any) -> None:
    """Seats, blocks and marks, counted anew."""
    engine = env.run.engine.copy()
    disband(engine.core)
    req, core, layout = engine.requests, engine.record[0], env.layout
    order = engine.arrays["run"][: int(core["num_running"])]
    block, free = int(core["block_size"]), int(core["free_blocks"])
    decodes = [q for q in req[order] if not q["in_prefill"]]
    demand = sum(int(q["computed"]) == int(q["held"]) * block for q in decodes)
    room = free > 0 or any(q["computed"] < q["held"] * block for q in req[order])
    for level in range(layout.num_chunk_budgets):
        runs = demand <= free if decodes else bool(len(order)) and env.run.lane.levels[level] > 0 and room
        assert mask[level] == runs
    for i, request in enumerate(env.run.lane.slots[: layout.num_waiting_slots]):
        legal = request >= 0 and core["num_running"] < core["max_num_seqs"] and not req["touched"][request] & ADMITTED
        if legal:
            q = req[request]
            tokens = 1 if core["reserve"] == Reserve.CHUNK else int(q["prompt"] + q["generated"])
            legal = -(-tokens // block) <= free
        assert mask[layout.encode(Kind.ADMIT, i)] == legal
    for j, position in enumerate(env.run.lane.slots[layout.num_waiting_slots :]):
        legal = position >= 0 and not req["touched"][order[position]] & ADMITTED
        assert mask[layout.encode(Kind.PREEMPT, j)] == legal


@pytest.mark.parametrize("slots", [(1, 1), (4, 5), (16, 16), (64, 128)])
@pytest.mark.parametrize("base", BASES)
def test_slots_and_masks(base: str, slots: tuple[int, int]) -> None:
    env = tight_env(
        small_workload(40, seed=5, rate=200.0),
        num_waiting_slots=slots[0],
        num_running_slots=slots[1],
        base=BASES[base],
        time_limit_s=0.6,
    )
    observation, _ = env.reset(seed=0)
    rng = np.random.default_rng(1)
    done = False
    while not done:
        if rng.random() < 0.3:  # of the whole episode; a check costs many steps
            check_slots(env, observation)
            check_mask(env, env.action_masks())
        observation, _, terminated, truncated, _ = env.step(random_legal(env.action_masks(), env.layout, rng))
        done = terminated or truncated
    check_slots(env, observation)


def test_the_last_observation_of_an_episode() -> None:
    """Nobody is left in it where the episode ran to its end."""
    env = tight_env()
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    done = False
    while not done:
        observation, _, done, _, _ = env.step(random_legal(env.action_masks(), env.layout, rng))
    assert not observation["waiting"].any() and not observation["running"].any()
    assert (env.run.lane.slots == -1).all()


def test_weights_need_not_know_the_number_of_slots() -> None:
    """More slots show the same engine and, of each kind, what fewer slots show."""
    small, large = (
        tight_env(small_workload(40, rate=500.0), num_waiting_slots=n, num_running_slots=n) for n in (4, 32)
    )
    a, _ = small.reset(seed=0)
    b, _ = large.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        np.testing.assert_array_equal(a["engine"], b["engine"])
        for table in ("waiting", "running"):
            rows = {row.tobytes() for row in b[table]}
            assert all(row.tobytes() in rows for row in a[table])
        action = random_legal(small.action_masks(), small.layout, rng)
        kind, target = small.layout.decode(action)
        if kind != Kind.RUN:
            slots = (
                (small.run.lane.slots[:4], large.run.lane.slots[:32])
                if kind == Kind.ADMIT
                else (small.run.lane.slots[4:], large.run.lane.slots[32:])
            )
            target = int(np.flatnonzero(slots[1] == slots[0][target])[0])
        a, *_ = small.step(action)
        b, *_ = large.step(large.layout.encode(kind, target))


def test_action_layout() -> None:
    layout = ActionLayout(3, 4, 5)
    assert layout.num_actions == 12
    decoded = [layout.decode(action) for action in range(12)]
    assert [kind for kind, _ in decoded] == [Kind.RUN] * 3 + [Kind.ADMIT] * 4 + [Kind.PREEMPT] * 5
    assert [layout.encode(kind, target) for kind, target in decoded] == list(range(12))
    for call, message in (
        (lambda: layout.decode(12), "actions are 0..11, got 12"),
        (lambda: layout.decode(-1), "actions are 0..11, got -1"),
        (lambda: layout.encode(Kind.ADMIT, 4), "ADMIT has targets 0..3, got 4"),
        (lambda: layout.encode(Kind.RUN, -1), "RUN has targets 0..2, got -1"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message
