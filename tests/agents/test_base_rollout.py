"""Base-policy rollouts: exact potentials; following the policy gains nothing; nothing is gained or lost by shaping."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from infermax_gym.agents.base_rollout import BaseRollout
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from infermax_gym.testing import random_legal
from tests.engine.strategies import CONCAVE

ROW = POLICIES["spf-headroom"]
CONFIG = EnvConfig(
    num_requests=40,
    backlog=(0, 20),
    num_kv_tokens=(9_000, 15_000),
    num_waiting_slots=64,
    num_running_slots=64,
    level_shares=(1.0,),
    base=ROW,
)


def lanes(seed: int, tau_s: float = 1e9, **settings: object) -> InferMaxVecEnv:
    env = InferMaxVecEnv(3, CONFIG.changed(**settings), seed=seed, base_rollout=BaseRollout(tau_s))
    env.reset()
    return env


def latency_s(env: InferMaxVecEnv, lane: int) -> np.ndarray:
    """What the policy makes of a lane's present episode."""
    episode = env.lanes.runs[lane].episode
    return simulate(episode.workload, episode.engine, ROW).latency_s


@pytest.mark.parametrize(("tau_s", "settings"), [(5.0, {}), (60.0, {}), (60.0, {"costs": (CONCAVE,)})])
def test_potentials_are_discounted_integrals(tau_s: float, settings: dict[str, object]) -> None:
    env = lanes(4, tau_s, **settings)
    assert env.base_rollout is not None
    found = env.base_rollout.potentials(env.lanes.runs)
    for i, run in enumerate(env.lanes.runs):
        w, now_s = run.episode.workload, float(env.lanes.clock_s[i])
        come = np.maximum(w.arrival_s - now_s, 0.0)
        gone = w.arrival_s + latency_s(env, i) - now_s
        expected = -tau_s * (np.exp(-come / tau_s) - np.exp(-gone / tau_s)).sum()
        assert found[i] == pytest.approx(expected, rel=1e-9)


def test_measuring_changes_nothing() -> None:
    """The same actions lead to the same observations with a base-policy rollout and without."""
    plain, shaped = InferMaxVecEnv(3, CONFIG, seed=7), lanes(7)
    a, rng = plain.reset(), np.random.default_rng(0)
    for _ in range(300):
        actions = np.array([random_legal(mask, CONFIG.layout, rng) for mask in plain.action_masks()])
        a, _, done, _ = plain.step(actions)
        b, _, also_done, _ = shaped.step(actions)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(done, also_done)


def test_following_the_row_gains_nothing() -> None:
    """Turn by turn: in the middle of one the policy would go on otherwise than from its beginning."""
    env = lanes(1)
    teachers = [PolicyTeacher(ROW, CONFIG.layout) for _ in env.lanes.runs]
    turn = np.zeros(3)
    for _ in range(400):
        actions = np.array([t.action_in(run) for t, run in zip(teachers, env.lanes.runs, strict=True)])
        _, gains, dones, _ = env.step(actions)
        turn += gains
        ended = actions == 0  # RUN
        np.testing.assert_allclose(turn[ended], 0.0, atol=1e-4)
        turn[ended] = 0.0
        for i in np.flatnonzero(dones):
            teachers[i].reset()


@pytest.mark.parametrize("decide", ["change", "event"])
@pytest.mark.parametrize("name", ["spf-headroom", "least-attained-service", "vllm-v0", "lightllm", "srf"])
def test_what_is_known_is_not_simulated_again(decide: str, name: str) -> None:
    """Bits are those of a fresh base-policy rollout at every state, however the policy is followed."""
    config = CONFIG.changed(base=POLICIES[name], decide=decide)
    env = InferMaxVecEnv(3, config, seed=3, base_rollout=BaseRollout(60.0))
    env.reset()
    rng = np.random.default_rng(4)
    assert env.base_rollout is not None
    for _ in range(250):
        masks = env.action_masks()
        waits = masks[:, 0] & (rng.random(3) < 0.8)  # RUN is what policies do most of the time
        actions = [0 if w else random_legal(m, config.layout, rng) for w, m in zip(waits, masks, strict=True)]
        env.step(np.array(actions))
        fresh = BaseRollout(60.0)
        fresh.begin(env.lanes.runs)
        np.testing.assert_array_equal(env.base_rollout.potentials(env.lanes.runs), fresh.potentials(env.lanes.runs))


def test_following_the_row_costs_little() -> None:
    env = lanes(1)
    teachers = [PolicyTeacher(ROW, CONFIG.layout) for _ in env.lanes.runs]
    assert env.base_rollout is not None
    before = env.base_rollout.num_runs
    for _ in range(200):
        actions = np.array([t.action_in(run) for t, run in zip(teachers, env.lanes.runs, strict=True)])
        _, _, dones, _ = env.step(actions)
        for i in np.flatnonzero(dones):
            teachers[i].reset()
    assert env.base_rollout.num_runs - before < 0.5 * 200 * 3
    before, known = env.base_rollout.num_runs, env.base_rollout.potentials(env.lanes.runs)
    assert env.base_rollout.num_runs == before
    env.base_rollout.forget()
    np.testing.assert_array_equal(env.base_rollout.potentials(env.lanes.runs), known)
    assert env.base_rollout.num_runs == before + 3


@pytest.mark.parametrize("decide", ["change", "event"])
def test_gains_sum_to_what_is_saved_against_the_row(decide: str) -> None:
    env, rng = lanes(5, decide=decide), np.random.default_rng(1)
    rows = [latency_s(env, i).sum() for i in range(3)]
    total, over = np.zeros(3), np.zeros(3, bool)
    while not over.all():
        actions = np.array([random_legal(mask, CONFIG.layout, rng) for mask in env.action_masks()])
        _, gains, dones, infos = env.step(actions)
        total += np.where(over, 0.0, gains)
        for i in np.flatnonzero(dones & ~over):
            own = -infos[i]["episode"]["r"]
            assert total[i] == pytest.approx(rows[i] - own, rel=1e-4, abs=0.05)
        over |= dones


def test_a_state_brings_its_potentials_along() -> None:
    env, other, rng = lanes(9), lanes(1), np.random.default_rng(2)
    for _ in range(40):
        env.step(np.array([random_legal(mask, CONFIG.layout, rng) for mask in env.action_masks()]))
    other.set_state(env.lanes.get_state())
    for _ in range(40):
        actions = np.array([random_legal(mask, CONFIG.layout, rng) for mask in env.action_masks()])
        np.testing.assert_array_equal(env.step(actions)[1], other.step(actions)[1])


def test_what_a_base_rollout_needs() -> None:
    for settings in ({"reward": "gpu_cost"}, {"max_decisions": 9}, {"time_limit_s": 9.0}):
        with pytest.raises(ValueError, match="a base-policy rollout needs the reward 'latency', and no time_limit_s"):
            lanes(0, **settings)
