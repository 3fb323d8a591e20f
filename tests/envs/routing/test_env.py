"""`InferMaxRouter-v0`: what a step is, what it pays, what is seen; scalar and vector alike."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.cluster import Fleet, Replica, simulate_fleet, summarize_fleet
from infermax_gym.engine import Policy
from infermax_gym.envs.rewards import REWARDS
from infermax_gym.envs.routing import layout
from infermax_gym.envs.routing.config import EPISODE_SETTINGS, RouterEnvConfig
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.workload import Workload
from tests.cluster.test_identities import ToTheLast
from tests.envs.routing.playing import CONFIG, SETTINGS, make, play, randomly, routed

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "environments.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("staleness_s", [0.0, 0.7])
def test_rewards_add_up(staleness_s: float) -> None:
    totals = {}
    for name in REWARDS:
        env = make(reward=name, staleness_s=staleness_s, ttft_slo_s=0.5)
        env.reset(seed=0)
        rewards, info = play(env, randomly(1))
        assert len(rewards) == 200
        totals[name] = sum(rewards)
    pooled = env.run.fleet.result(keep=True).pooled
    assert totals["latency"] == pytest.approx(-pooled.latency_s.sum(), rel=1e-9)
    assert totals["ttft"] == pytest.approx(-pooled.ttft_s.sum(), rel=1e-9)
    assert totals["gpu_cost"] == pytest.approx(-pooled.busy_s, rel=1e-9)
    assert 0 < totals["goodput"] < 200
    assert totals["goodput"] == pytest.approx(info["metrics"]["slo_attainment"] * 200)


def test_steps_are_arrivals() -> None:
    env, workload = make(), routed()
    _, info = env.reset(seed=0)
    clocks = [info["clock_s"]]
    for _ in range(199):
        _, _, terminated, _, info = env.step(0)
        assert not terminated
        assert info["dt_s"] == pytest.approx(info["clock_s"] - clocks[-1])
        clocks.append(info["clock_s"])
    np.testing.assert_array_equal(clocks, workload.arrival_s)
    _, _, terminated, truncated, info = env.step(0)
    assert (terminated, truncated) == (True, False)
    assert info["clock_s"] == info["metrics"]["makespan_s"]
    _, reward, terminated, _, info = env.step(3)
    assert (reward, terminated, info["dt_s"]) == (0.0, True, 0.0)


def test_metrics_are_those_of_the_fleet() -> None:
    env = make()
    env.reset(seed=0)
    _, info = play(env, lambda env: 4)
    metrics = info["metrics"]
    assert (metrics.pop("num_decisions"), metrics.pop("num_illegal")) == (200, 0)
    assert metrics == summarize_fleet(simulate_fleet(routed(), Fleet.uniform(5, CONFIG), ToTheLast()))


def test_time_limit() -> None:
    env, workload = make(time_limit_s=3.0), routed()
    env.reset(seed=0)
    rewards, info = play(env, randomly(0))
    assert len(rewards) == info["routed_by_agent"] == int((workload.arrival_s < 3.0).sum())
    assert info["routed_by_fallback"] == 200 - len(rewards)
    assert info["metrics"]["num_finished"] == 200
    assert info["metrics"]["num_rejected"] == 0
    assert info["clock_s"] >= 3.0


MIXED = Workload(np.arange(6.0), [2_000, 100, 30_000, 100, 2_000, 60], np.full(6, 20))


def mixed_env(**settings: Any) -> InferMaxRouterEnv:
    """Replica 0 and 2 hold 1,600 tokens, replica 1 holds 6,400; one request fits nowhere."""
    env = make(workloads=(MIXED,), num_requests=6, num_replicas=3, rate_per_replica=(1 / 3, 1 / 3), **settings)
    from infermax_gym.envs.routing import episode

    sizes = (1_600, 6_400, 1_600)
    replicas = tuple(Replica(replace(CONFIG, num_kv_tokens=size), Policy("fcfs")) for size in sizes)
    original = episode._replicas
    episode._replicas = lambda *arguments: replicas
    try:
        env.reset(seed=0)
    finally:
        episode._replicas = original
    return env


def test_masks_illegal_choices_and_rejections() -> None:
    env = mixed_env()
    masks = [env.action_masks().tolist()]
    for action in (2, 2, 7, 0):
        _, _, terminated, _, info = env.step(action)
        masks.append(env.action_masks().tolist())
        assert not terminated
    _, _, terminated, _, info = env.step(2)
    assert terminated
    large, small = [False, True, False], [True, True, True]
    assert masks == [large, small, small, large, small]  # the third request was rejected without asking
    result = env.run.fleet.result(keep=True)
    assert result.replica_of.tolist() == [1, 2, -1, 0, 1, 2]
    assert info["num_illegal"] == 3  # 2 for 1, 7 of 3, 0 for 1
    assert info["metrics"]["num_rejected"] == 1
    assert info["metrics"]["num_finished"] == 5


def test_renaming_replicas_permutes_rows_and_nothing_else() -> None:
    order = np.array([3, 0, 4, 1, 2])  # replica i of the second environment is replica order[i] of the first
    one, other = make(), make()
    first, _ = one.reset(seed=0)
    second, _ = other.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(199):
        np.testing.assert_array_equal(first["replicas"][order], second["replicas"])
        np.testing.assert_array_equal(first["request"], second["request"])
        action = int(rng.integers(5))
        first, reward, *_ = one.step(action)
        second, again, *_ = other.step(int(np.flatnonzero(order == action)[0]))
        assert again == pytest.approx(reward, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("num_replicas", [1, 2, 17])
def test_any_number_of_replicas(num_replicas: int) -> None:
    env = make(num_replicas=num_replicas, alike=False, num_kv_tokens=(9_000, 50_000))
    observation, _ = env.reset(seed=0)
    assert observation["replicas"].shape == (num_replicas, len(layout.REPLICA_FEATURES))
    assert env.observation_space.contains(observation)
    _, info = play(env, randomly(0))
    assert info["metrics"]["num_finished"] == 200


def test_observations_say_what_the_replicas_say() -> None:
    env = make(information="oracle")
    observation, _ = env.reset(seed=0)
    rows = {name: k for k, name in enumerate(layout.REPLICA_FEATURES)}
    for _ in range(60):
        observation, *_ = env.step(1)
    seen = observation["replicas"]
    signals = env.run.fleet.state.arrays["signals"]
    np.testing.assert_allclose(seen[:, rows["waiting"]], signals[0] / (signals[0] + 8.0), rtol=1e-6)
    np.testing.assert_allclose(seen[:, rows["running"]], signals[1] / 200, rtol=1e-6)
    np.testing.assert_allclose(seen[:, rows["free_kv"]], signals[4] / 8_992, rtol=1e-6)
    assert seen[1, rows["waiting"]] > 0.5
    assert seen[:, rows["chosen_last"]].tolist() == [0, 1, 0, 0, 0]
    prompt, output = routed().num_prompt_tokens[60], routed().num_output_tokens[60]
    np.testing.assert_allclose(
        observation["request"][:2], [prompt / (prompt + 1e3), output / (output + 1e2)], rtol=1e-6
    )


def test_output_lengths_are_hidden() -> None:
    """Two workloads that differ in what is still unknown look alike until something finishes differently."""
    workload = routed()
    other = replace(workload, num_output_tokens=workload.num_output_tokens + 500)
    first, second = (make(workloads=(w,), num_kv_tokens=(90_000, 90_000)).reset(seed=0)[0] for w in (workload, other))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_lanes_are_scalar_environments() -> None:
    settings = {**SETTINGS, "num_requests": 40, "staleness_s": 0.2, "alike": False, "num_kv_tokens": (5_000, 30_000)}
    vector = InferMaxRouterVectorEnv(3, **settings)
    scalars = [InferMaxRouterEnv(**settings) for _ in range(3)]
    seen, _ = vector.reset(seed=5)
    rows = [env.reset(seed=5 + i)[0] for i, env in enumerate(scalars)]
    rng = np.random.default_rng(2)
    ended = 0
    for _ in range(130):
        for name in seen:
            np.testing.assert_array_equal(seen[name], np.stack([row[name] for row in rows]))
        actions = rng.integers(0, 5, 3)
        seen, rewards, terminated, truncated, info = vector.step(actions)
        for i, env in enumerate(scalars):
            rows[i], reward, done, cut, alone = env.step(actions[i])
            assert (reward, done, cut) == (rewards[i], terminated[i], truncated[i])
            assert alone["dt_s"] == info["dt_s"][i]
            if done:
                ended += 1
                for name in rows[i]:
                    np.testing.assert_array_equal(info["final_obs"][i][name], rows[i][name])
                assert info["final_info"]["metrics"][i] == alone["metrics"]
                rows[i], _ = env.reset()
    assert ended == 9


def test_room_is_made_in_lanes_too() -> None:
    env = InferMaxRouterVectorEnv(2, **{**SETTINGS, "num_replicas": 12})
    env.reset(seed=0)
    for _ in range(199):
        env.step([3, 11])
    _, _, terminated, _, info = env.step([3, 11])
    assert terminated.all()
    assert [m["num_finished"] for m in info["final_info"]["metrics"]] == [200, 200]
    assert info["final_info"]["metrics"][0]["request_imbalance"] == 12.0


def test_states_branch() -> None:
    env = make(staleness_s=0.1)
    env.reset(seed=0)
    for _ in range(70):
        env.step(env.action_space.sample())
    state = env.get_state()
    first, _ = play(env, randomly(3))
    other = make(staleness_s=0.1)
    observation = other.set_state(state)
    assert other.observation_space.contains(observation)
    second, _ = play(other, randomly(3))
    env.set_state(pickle.loads(pickle.dumps(state)))
    third, _ = play(copy.deepcopy(env), randomly(3))
    assert first == second == third
    fourth, _ = play(env, randomly(4))
    assert fourth != first


def test_vector_states_branch() -> None:
    env = InferMaxRouterVectorEnv(2, flat=True, **SETTINGS)
    env.reset(seed=0)
    for _ in range(20):
        env.step([0, 1])
    states, twin = env.get_state(), copy.deepcopy(env)
    ahead = [env.step([2, 2])[0] for _ in range(30)]
    np.testing.assert_array_equal([twin.step([2, 2])[0] for _ in range(30)], ahead)
    env.set_state(states)
    np.testing.assert_array_equal([env.step([2, 2])[0] for _ in range(30)], ahead)


def test_seeds_and_options() -> None:
    env = gym.make("InferMaxRouter-v0", num_requests=30, alike=False, num_kv_tokens=(5_000, 50_000)).unwrapped
    assert isinstance(env, InferMaxRouterEnv)
    first, _ = env.reset(seed=4)
    second, _ = env.reset()
    third, _ = env.reset(seed=4)
    assert (first["replicas"] != second["replicas"]).any()
    np.testing.assert_array_equal(first["replicas"], third["replicas"])
    env.reset(seed=4, options={"num_requests": 12, "rate_per_replica": 2.0, "num_kv_tokens": 7_000})
    assert len(env.run.workload) == 12
    assert env.run.workload.mean_rate_per_s == pytest.approx(8.0)
    assert {r.config.num_kv_tokens for r in env.run.fleet.fleet.replicas} == {7_000}
    with pytest.raises(ValueError, match="unknown reset option 'speed'"):
        env.reset(options={"speed": 1})


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"num_replicas": 0}, "num_replicas"),
        ({"num_requests": 1}, "num_requests"),
        ({"rate_per_replica": (0.0, 1.0)}, "rate_per_replica"),
        ({"rate_per_replica": (2.0, 1.0)}, "rate_per_replica"),
        ({"num_kv_tokens": (8, 8)}, "num_kv_tokens"),
        ({"costs": ("gpt",)}, "unknown cost model"),
        ({"reward": "money"}, "unknown reward"),
        ({"information": "some"}, "information"),
        ({"staleness_s": -1.0}, "staleness_s"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
        ({"render_mode": "svg"}, "render_mode"),
    ],
)
def test_bad_settings_say_so(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        InferMaxRouterEnv(**settings)


def test_oracle_policies_want_information() -> None:
    from infermax_gym.baselines.policies import POLICIES

    with pytest.raises(ValueError, match="needs predictions"):
        RouterEnvConfig(policy=POLICIES["sjf-oracle"])


def test_the_picture_in_text() -> None:
    env = make(render_mode="ansi")
    env.reset(seed=0)
    env.step(2)
    text = env.render()
    assert "request 2 of 200" in text
    assert text.count("replica ") == 5


def test_it_steps_before_reset_only_with_a_message() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        make().step(0)


def test_the_sheet_and_the_docs_say_what_the_code_says() -> None:
    sheet = InferMaxRouterEnv.__doc__ or ""
    assert f"request: ({len(layout.REQUEST_FEATURES)},)" in sheet
    assert f"replicas: (N, {len(layout.REPLICA_FEATURES)})" in sheet
    source = Path(layout.__file__).read_text(encoding="utf-8")
    for names in (layout.REPLICA_FEATURES, layout.REQUEST_FEATURES):
        for name in names:
            (meaning,) = re.findall(rf"^    {name.upper()} = \d+  # (.*)$", source, re.MULTILINE)
            assert f"| `{name}` | {meaning} |" in DOCS
    for option in EPISODE_SETTINGS:
        assert f"`{option}`" in DOCS
    fields = RouterEnvConfig.__doc__ or ""
    for name in RouterEnvConfig.__dataclass_fields__:
        assert re.search(rf"^        {name}: ", fields, re.MULTILINE), name
