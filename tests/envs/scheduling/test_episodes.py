"""Drawing, pinning, seeding, ending and logging episodes; what happens to illegal actions."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, simulate, summarize
from infermax_gym.envs.draws import streams_of_lanes
from infermax_gym.envs.fallback import FALLBACK
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import Kind
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.testing import random_legal
from infermax_gym.workload import Workload, WorkloadError, make_workload, write_workload
from tests.envs.playing import play, randomly, small_workload, tight_env

ROOT = Path(__file__).resolve().parents[3]

# Ends


def test_truncated_by_time() -> None:
    env = tight_env(time_limit_s=0.5)
    env.reset(seed=0)
    _, info = play(env, randomly(0))
    assert info["clock_s"] >= 0.5
    assert info["clock_s"] - info["dt_s"] < 0.5
    assert 0 < info["finished_by_agent"] < info["metrics"]["num_requests"] == 24
    assert info["finished_by_fallback"] == 24 - info["finished_by_agent"]


def test_truncated_by_time_while_the_engine_skips() -> None:
    """A lone long decode is not run beyond the limit, but for its last iteration."""
    env = tight_env(Workload([0.0], [10], [200]), time_limit_s=0.3)
    env.reset(seed=0)
    env.step(env.layout.encode(Kind.ADMIT, 0))
    _, _, terminated, truncated, info = env.step(env.layout.num_chunk_budgets - 1)
    assert (terminated, truncated) == (True, True)
    assert (info["finished_by_agent"], info["finished_by_fallback"]) == (0, 1)
    req = env.run.engine.requests[0]
    handed_over_s = simulate(env.run.episode.workload, env.run.episode.engine, FALLBACK).finish_s[0]
    assert req["finish_s"] == handed_over_s == info["clock_s"], "a lone request has one schedule, whoever serves"


def test_truncated_by_decisions() -> None:
    env = tight_env(max_decisions=9)
    env.reset(seed=0)
    rewards, info = play(env, randomly(0))
    assert len(rewards) == info["metrics"]["num_decisions"] == 9


def test_metrics_are_those_of_bench() -> None:
    row = POLICIES["sarathi"]
    workload = make_workload("azure-conv", 40, seed=1)
    env = InferMaxEnv(workloads=(workload,), num_requests=40, base=row)
    teacher = PolicyTeacher(row, env.layout)
    env.reset(seed=0)
    _, info = play(env, teacher.action)
    engine = EngineConfig(cost=COSTS["llama2-7b-a100"], num_kv_tokens=20_000)
    expected = summarize(simulate(workload, engine, row), engine)
    own = {"num_decisions", "num_illegal"}
    for name in expected.keys() - own:
        same = info["metrics"][name] == expected[name]
        assert same or info["metrics"][name] == pytest.approx(expected[name], rel=1e-12), name


def test_everything_rejected() -> None:
    """The one legal action ends an episode that had nothing to decide."""
    workload = replace(small_workload(5), num_prompt_tokens=np.full(5, 10_000))
    env = tight_env(workload)
    observation, _ = env.reset(seed=0)
    assert observation["action_mask"].sum() == 1
    _, reward, terminated, truncated, info = env.step(int(observation["action_mask"].argmax()))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["metrics"]["num_rejected"] == 5 and info["num_illegal"] == 0


def test_a_step_after_the_end_changes_nothing() -> None:
    env = tight_env()
    env.reset(seed=0)
    _, info = play(env, randomly(0))
    for action in (0, env.layout.num_actions - 1, -1):
        _, reward, terminated, _, again = env.step(action)
        assert (reward, terminated, again["dt_s"], again["clock_s"]) == (0.0, True, 0.0, info["clock_s"])
        own = {"num_decisions": again["metrics"]["num_decisions"]}
        assert again["metrics"] == {**info["metrics"], **own}


# Long episodes: the log fills and is emptied on the way.

LONG = Workload(np.zeros(30), np.full(30, 8), np.full(30, 2_000))


@pytest.mark.parametrize("decide", ["event", "iteration"])
def test_full_logs_are_emptied(decide: str) -> None:
    row = replace(POLICIES["sarathi"], max_running=1)
    config = EnvConfig(
        workloads=(LONG,),
        num_requests=30,
        num_kv_tokens=(4_000, 4_000),
        max_num_seqs=1,
        decide=decide,  # type: ignore[arg-type]
        base=row,
    )
    expected = simulate(LONG, EngineConfig(num_kv_tokens=4_000, max_num_seqs=1), row)
    assert expected.num_iterations > 50_000
    env = InferMaxEnv(config, flat=True)
    vector = InferMaxVectorEnv(2, config, flat=True)
    env.reset(seed=0)
    vector.reset(seed=0)
    run, admit = env.layout.num_chunk_budgets - 1, env.layout.encode(Kind.ADMIT, 0)
    done = False
    while not done:
        action = admit if env.action_masks()[admit] else run
        _, reward, done, _, info = env.step(action)
        _, rewards, _, _, lanes = vector.step(np.array([action, action]))
        assert (rewards == reward).all()
    np.testing.assert_array_equal(env.run.engine.requests["finish_s"], expected.finish_s)
    assert info["metrics"]["itl_s"] == pytest.approx(summarize(expected, EngineConfig())["itl_s"], rel=1e-12)
    assert sum(counts.sum() for counts in env.run.recorder.gap_counts) == 30 * 1_999
    assert lanes["final_info"]["metrics"].tolist() == [info["metrics"]] * 2


# Drawing and pinning


def drawn(env: InferMaxEnv) -> dict[str, Any]:
    episode = env.run.episode
    return {
        "prompts": episode.workload.num_prompt_tokens.tolist(),
        "arrivals": episode.workload.arrival_s.tolist(),
        "memory": episode.engine.num_kv_tokens,
        "cost": episode.engine.cost.name,
    }


def ranging(**settings: Any) -> InferMaxEnv:
    defaults: dict[str, Any] = {
        "workloads": ("azure-conv", "azure-code"),
        "num_requests": 8,
        "backlog": (0, 6),
        "time_scale": (0.5, 1.5),
        "num_kv_tokens": (10_000, 60_000),
        "costs": ("llama2-7b-a100", "llama3-70b-a100x4"),
    }
    return InferMaxEnv(**{**defaults, **settings})


def test_seeds_decide_episodes() -> None:
    env, twin = ranging(), ranging()
    seen = []
    for seed in (3, None, None):
        env.reset(seed=seed)
        twin.reset(seed=seed)
        assert drawn(env) == drawn(twin)
        seen.append(drawn(env))
    assert seen[0] != seen[1] != seen[2]
    env.reset(seed=3)
    assert drawn(env) == seen[0]
    env.reset(seed=4)
    assert drawn(env) != seen[0]


def test_unseeded_environments_differ() -> None:
    env, twin = ranging(), ranging()
    env.reset()
    twin.reset()
    assert drawn(env) != drawn(twin)


def test_ranges_are_kept_and_used() -> None:
    env = ranging()
    memory, costs, backlogs = [], set(), set()
    env.reset(seed=0)
    for _ in range(60):
        env.reset()
        memory.append(env.run.episode.engine.num_kv_tokens)
        costs.add(env.run.episode.engine.cost.name)
        backlogs.add(len(env.run.episode.workload) - 8)
    assert 10_000 <= min(memory) < 15_000 and 40_000 < max(memory) <= 60_000
    assert np.median(memory) < 32_000, "a wide range is drawn on a log scale"
    assert len(costs) == 2 and backlogs == set(range(7))


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"num_kv_tokens": 12_345}, "memory", 12_345),
        ({"cost": "llama3-70b-a100x4"}, "cost", "llama3-70b-a100x4"),
        ({"cost": COSTS["llama2-7b-a100"]}, "cost", "llama2-7b-a100"),
    ],
)
def test_options_pin_one_thing(options: dict[str, Any], name: str, value: Any) -> None:
    """And leave the others, also of the following episodes, as they would have been."""
    free, pinned = ranging(), ranging()
    for seed in (5, None):
        free.reset(seed=seed)
        pinned.reset(seed=seed, options=options if seed is not None else None)
        expected = drawn(free)
        if seed is not None:
            expected[name] = value
        assert drawn(pinned) == expected


def test_options_of_the_requests() -> None:
    trace = small_workload(50)
    env = ranging()
    env.reset(seed=0, options={"workload": trace, "start": 7, "num_requests": 5, "backlog": 2, "time_scale": 2.0})
    workload = env.run.episode.workload
    assert workload.num_prompt_tokens.tolist() == trace.num_prompt_tokens[7:14].tolist()
    expected = np.maximum(2.0 * (trace.arrival_s[7:14] - trace.arrival_s[8]), 0.0)
    np.testing.assert_allclose(workload.arrival_s, expected, atol=1e-12)
    env.reset(seed=0, options={"workload": "reasoning", "backlog": 0})
    assert env.run.episode.workload.name == "reasoning" and len(env.run.episode.workload) == 8


def test_windows_of_a_trace_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    trace = small_workload(60)
    write_workload(trace, path)
    env = InferMaxEnv(workloads=(str(path),), num_requests=20)
    firsts = set()
    for seed in range(8):
        env.reset(seed=seed)
        firsts.add(tuple(env.run.episode.workload.num_prompt_tokens[:3]))
        assert env.run.episode.workload.arrival_s[0] == 0.0
    assert len(firsts) > 4


def test_slos_fill_in_where_there_are_none() -> None:
    env = tight_env(small_workload(), ttft_slo_s=0.7, tpot_slo_s=0.03)
    env.reset(seed=0)
    workload, own = env.run.episode.workload, small_workload()
    np.testing.assert_array_equal(workload.ttft_slo_s, np.where(np.isfinite(own.ttft_slo_s), own.ttft_slo_s, 0.7))
    np.testing.assert_array_equal(workload.tpot_slo_s, np.where(np.isfinite(own.tpot_slo_s), own.tpot_slo_s, 0.03))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"speed": 1},
            ValueError,
            "environment: unknown reset option 'speed'; known: workloads, start, num_requests, backlog, time_scale, "
            "concurrency, think_s, ramp_up_s, sessions, "
            "num_kv_tokens, costs, ttft_slo_s, tpot_slo_s, time_limit_s",
        ),
        ({"workload": "nowhere.csv"}, ValueError, "'nowhere.csv', which is neither a preset nor a file"),
        ({"workload": small_workload(4)}, WorkloadError, "workload: no trace slice of"),
        ({"workload": small_workload(40), "start": 35}, WorkloadError, "workload: no trace slice of"),
        ({"num_kv_tokens": 3}, ValueError, "environment: num_kv_tokens must be at least a block of 16 tokens, got 3"),
        (
            {"time_scale": 0.0},
            ValueError,
            "environment: time_scale must be a number above 0, or a pair low <= high of such numbers, got 0.0",
        ),
        (
            {"num_requests": 0},
            ValueError,
            "num_requests must be a whole number of at least 1, or a pair low <= high of such numbers, got 0",
        ),
        (
            {"backlog": -3},
            ValueError,
            "backlog must be a whole number of at least 0, or a pair low <= high of such numbers, got -3",
        ),
        ({"cost": "abacus"}, ValueError, "unknown cost model 'abacus'"),
    ],
)
def test_option_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ranging(backlog=(0, 0)).reset(seed=0, options=options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Illegal actions


@pytest.mark.parametrize("flat", [False, True])
def test_illegal_actions_are_replaced(flat: bool) -> None:
    """Counted, and what is done instead is RUN at full budget, else the first legal victim, else an admission."""
    env, twin = (tight_env(flat=flat, num_kv_tokens=(110, 110), block_size=2) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    rng = np.random.default_rng(0)
    num_illegal, replaced = 0, set()
    done = False
    while not done:
        mask = env.action_masks()
        full = env.layout.num_chunk_budgets - 1
        victims = [a for a in range(env.layout.encode(Kind.PREEMPT, 0), env.layout.num_actions) if mask[a]]
        admissions = [a for a in range(full + 1, full + 1 + env.layout.num_waiting_slots) if mask[a]]
        instead = full if mask[full] else (victims or admissions)[0]
        forbidden = [*np.flatnonzero(mask == 0).tolist(), -1, -7, env.layout.num_actions, 2**40, -(2**40)]
        if rng.random() < 0.4:
            num_illegal += 1
            replaced.add(env.layout.decode(instead)[0])
            step = env.step(forbidden[rng.integers(len(forbidden))])
            other = twin.step(instead)
        else:
            action = random_legal(mask, env.layout, rng)
            step, other = env.step(action), twin.step(action)
        assert step[1:4] == other[1:4] and step[4]["clock_s"] == other[4]["clock_s"]
        assert step[4]["num_illegal"] == num_illegal and other[4]["num_illegal"] == 0
        done = step[2]
    assert num_illegal > 20 and replaced == {Kind.RUN, Kind.ADMIT, Kind.PREEMPT}


def test_actions_of_every_integer_type() -> None:
    env = tight_env()
    env.reset(seed=0)
    for kind in (int, np.int8, np.int32, np.int64, np.uint16, np.array):
        env.step(kind(int(env.action_masks().argmax())))
    for wrong in (None, "run", [1, 2]):
        with pytest.raises((TypeError, ValueError)):
            env.step(wrong)


def test_event_and_iteration_differ_only_in_when_they_ask() -> None:
    """An agent that always lets the engine run on gets the same episode."""
    ends = []
    for decide in ("event", "iteration"):
        env = tight_env(decide=decide)
        env.reset(seed=0)
        _, info = play(env, lambda _: -1)
        ends.append((env.run.engine.requests["finish_s"].tolist(), info["metrics"]["busy_s"]))
    assert ends[0] == ends[1]


# Reproducibility

DIGEST = """
import hashlib, numpy as np
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.testing import random_legal
env = InferMaxEnv(num_requests=25, flat=True, num_kv_tokens=(4_000, 20_000), information="noisy")
rng, digest = np.random.default_rng(0), hashlib.sha256()
observation, info = env.reset(seed=123)
for _ in range(700):
    observation, reward, terminated, truncated, info = env.step(random_legal(env.action_masks(), env.layout, rng))
    digest.update(observation.tobytes() + np.float64([reward, info["clock_s"]]).tobytes())
    if terminated or truncated:
        observation, info = env.reset()
print(digest.hexdigest())
"""


def test_same_bytes_in_every_process() -> None:
    run = lambda: subprocess.run(  # noqa: E731
        [sys.executable, "-c", DIGEST], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    ).stdout.strip()
    first = run()
    assert first == run()
    assert len(first) == len(hashlib.sha256().hexdigest())


def test_streams_of_lanes() -> None:
    """Lane i gets seed + i, whatever kind of integer; lanes without a seed go on, or get seeds of their own."""
    assert [one.seed for one in streams_of_lanes([], np.int64(7), 3)] == [7, 8, 9]
    mixed = streams_of_lanes([], [5, None, None], 3)
    assert mixed[0].seed == 5 and mixed[1].seed != mixed[2].seed
    again = streams_of_lanes(mixed, [None, 6, None], 3)
    assert again[0] is mixed[0] and again[1].seed == 6 and again[2] is mixed[2]
    with pytest.raises(ValueError, match="need one seed for each of 3 lanes, got 2"):
        streams_of_lanes([], [1, 2], 3)
