"""Nobody beats the fallback by leaving requests to it, whatever the id, the reward, the limit, the information.

A better return is honest only where the agent has served everybody itself: then it is what the service was worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.envs.knobs.layout import Knob
from infermax_gym.envs.routing.layout import REPLICA_FEATURES
from infermax_gym.envs.scheduling.layout import Kind
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from tests.engine.strategies import examples
from tests.envs.serving import IDS, LIMITS, NUM_REQUESTS, REWARDS, SHAPES, STALLERS, made, rule_on, served_by_rule

INFORMATION = ("none", "noisy", "oracle")
Agent = Callable[[Any, Any, np.random.Generator], Any]
EVERY_LIMIT: dict[str, dict[str, Any]] = {
    **LIMITS,
    "registered": {},
    "both": {"max_decisions": 20, "time_limit_s": 6.0},
}


def run_empty(env: Any, observation: Any, rng: np.random.Generator) -> int:
    """RUN at chunk budget 0, legal or not."""
    return 0


def knobs_of(**knobs: float) -> Agent:
    """The same knobs at every step, the others in the middle."""
    action = np.zeros(len(Knob))
    for name, value in knobs.items():
        action[Knob[name.upper()]] = value
    return lambda env, observation, rng: action


def flipping(env: Any, observation: Any, rng: np.random.Generator) -> Any:
    """From one extreme to the other."""
    return np.full(len(Knob), 1.0 if env.run.lane.record["num_decisions"][0] % 2 else -1.0)


def random_knobs(env: Any, observation: Any, rng: np.random.Generator) -> Any:
    return rng.uniform(-1.0, 1.0, len(Knob))


def slowest(env: Any, observation: Any, rng: np.random.Generator) -> int:
    """The replica where a request would start last."""
    return int(observation["replicas"][:, REPLICA_FEATURES.index("start_delay")].argmax())


SCHEDULING: dict[str, Agent] = {
    "run empty": run_empty,
    **{name: lambda e, _, rng, f=choose: f(e, e.action_masks(), rng) for name, choose in STALLERS.items()},
}

AGENTS: dict[str, dict[str, Agent]] = {
    "InferMax-v0": SCHEDULING,
    "InferMaxLongContext-v0": SCHEDULING,
    "InferMaxKnobs-v0": {
        "admit nobody": knobs_of(headroom=1.0, max_running=-1.0, prefill_share=-1.0),
        "longest first": knobs_of(known_tokens=-1.0, aging=-1.0),
        "preempt the oldest work": knobs_of(headroom=-1.0, max_running=1.0, victim_processed=1.0),
        "flipping": flipping,
        "random": random_knobs,
    },
    "InferMaxRouter-v0": {
        "all to one": lambda env, observation, rng: 0,
        "illegal": lambda env, observation, rng: 99,
        "slowest": slowest,
        "random": lambda env, observation, rng: int(rng.integers(2)),
    },
}


def check_end(env: Any, reward: str, total: float, info: dict[str, Any]) -> None:
    """The return of an episode that is over, against the rule on the same workload."""
    best = served_by_rule(env, reward)
    routed = "routed_by_agent" in info
    by_agent, by_fallback = (info[f"{'routed' if routed else 'finished'}_by_{who}"] for who in ("agent", "fallback"))
    metrics = info["metrics"]
    num_finished, num_rejected = metrics["num_finished"], metrics["num_rejected"]
    assert num_finished + num_rejected == metrics["num_requests"]
    assert by_agent + by_fallback == (metrics["num_requests"] if routed else num_finished)
    worth = {
        "latency": -metrics["latency_s"]["mean"] * num_finished,
        "ttft": -metrics["ttft_s"]["mean"] * num_finished,
        "gpu_cost": -metrics["busy_s"],
        "goodput": metrics["slo_attainment"] * metrics["num_requests"],
    }[reward]
    serves_less = by_fallback > 0
    if serves_less:
        assert total <= best + 1e-9 * abs(best), f"{total} by serving {by_agent}, the rule {best}"
    elif total > best:
        assert total == pytest.approx(worth, rel=1e-9), "more than the rule only for service"


@examples(150)
@given(data=st.data())
def test_nobody_is_paid_for_what_the_fallback_serves(data: st.DataObject) -> None:
    pick = lambda known: data.draw(st.sampled_from(list(known)))  # noqa: E731
    env_id, reward, information = pick(IDS), pick(REWARDS), pick(INFORMATION)
    limit, seed = pick(EVERY_LIMIT), data.draw(st.integers(0, 10_000))
    more: dict[str, Any] = {"interval_s": pick((0.2, 2.0))} if env_id == "InferMaxKnobs-v0" else {}
    if env_id in ("InferMax-v0", "InferMaxLongContext-v0"):
        asked, forced = pick(("event", "change", "iteration")), pick(("any", "forced"))
        more = {"decide": asked, "preempt": forced, "backlog": pick((0, 10))}
    env = made(env_id, reward, information=information, num_requests=25, **EVERY_LIMIT[limit], **more)
    agent, rng = AGENTS[env_id][pick(AGENTS[env_id])], np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    total, ended, info = 0.0, False, {}
    while not ended:
        observation, step_reward, ended, _, info = env.step(agent(env, observation, rng))
        total += step_reward
    check_end(env, reward, total, info)


def test_who_serves_better_is_paid_better() -> None:
    """The cap is on what is left to the fallback, not on good service."""
    policy = POLICIES["srpt-work-oracle"]
    env = made("InferMax-v0", base=policy, information="oracle", num_waiting_slots=32, num_running_slots=64)
    env.reset(seed=1)
    best, total, ended = served_by_rule(env, "latency"), 0.0, False
    teacher = PolicyTeacher(policy, env.layout)
    while not ended:
        _, reward, ended, truncated, info = env.step(teacher.action(env))
        total += reward
    assert not truncated and info["finished_by_agent"] == NUM_REQUESTS
    assert total > 0.95 * best


# Evolution against the return. All candidates play the same episode, each in a lane; once as many requests as the cap
# are finished (or routed), a candidate stalls.

CAP = 4
NUM_CANDIDATES = 12
NUM_GENERATIONS = 6


def scheduling_actions(lanes: Any, genes: Any, rng: np.random.Generator) -> Any:
    """How often each kind of action is taken, and whether the first or the last of it."""
    starts = [lanes.layout.encode(kind, 0) for kind in Kind]
    chosen = np.zeros(lanes.num_envs, np.int64)
    for i, mask in enumerate(lanes.action_masks()):
        parts = [np.flatnonzero(part) + first for part, first in zip(np.split(mask, starts[1:]), starts, strict=True)]
        kinds = np.exp(genes[i, :3]) if lanes.runs[i].engine.record["num_finished"][0] < CAP else np.array([0, 0.1, 1])
        shares = kinds * np.array([part.size > 0 for part in parts])
        if shares.sum() == 0.0:
            shares = np.array([part.size > 0 for part in parts], float)
        part = parts[int(rng.choice(3, p=shares / shares.sum()))]
        chosen[i] = part[0] if genes[i, 3] > 0.0 else part[-1]
    return chosen


def knobs_actions(lanes: Any, genes: Any, rng: np.random.Generator) -> Any:
    """Knobs before the cap and others behind it."""
    behind = np.array([run.engine.record["num_finished"][0] >= CAP for run in lanes.runs])
    return np.clip(np.where(behind[:, None], genes[:, 11:], genes[:, :11]), -1.0, 1.0)


def routing_actions(lanes: Any, genes: Any, rng: np.random.Generator) -> Any:
    """Weights of a replica's features; behind the cap no choice at all."""
    seen = lanes._observe(slice(None))["replicas"]
    best = np.einsum("nrf,nf->nr", seen, genes).argmax(1)
    behind = np.array([run.fleet.next_request >= CAP for run in lanes.runs])
    return np.where(behind, -1, best)


SEARCHES: dict[str, tuple[int, Any, dict[str, Any]]] = {
    "InferMaxLongContext-v0": (4, scheduling_actions, {"max_decisions": 20, **SHAPES["InferMaxLongContext-v0"]}),
    "InferMax-v0": (4, scheduling_actions, {"max_decisions": 120}),
    "InferMaxKnobs-v0": (22, knobs_actions, {"max_decisions": 6, "interval_s": 0.5}),
    "InferMaxRouter-v0": (len(REPLICA_FEATURES), routing_actions, {"max_decisions": 15, "num_replicas": 2}),
}


@pytest.mark.parametrize(("reward", "information"), list(zip(REWARDS, (*INFORMATION, "none"), strict=True)))
@pytest.mark.parametrize("env_id", IDS)
def test_a_searched_adversary_does_not_beat_the_rule(env_id: str, reward: str, information: str) -> None:
    """Candidates look at what requests there are, not at what is said of their lengths."""
    num_genes, choose, limits = SEARCHES[env_id]
    rng = np.random.default_rng(7)
    chosen = {"num_requests": 25, "num_kv_tokens": 6_000, "ttft_slo_s": 2.0, "tpot_slo_s": 0.1, **limits}
    lanes: Any = gym.make_vec(
        env_id, num_envs=NUM_CANDIDATES, autoreset_mode="NEXT_STEP", metrics=False,
        reward=reward, information=information, **chosen,
    )  # fmt: skip
    centre, spread, found, rule = np.zeros(num_genes), 2.0, -np.inf, 0.0
    for _ in range(NUM_GENERATIONS):
        genes = centre + spread * rng.standard_normal((NUM_CANDIDATES, num_genes))
        lanes.reset(seed=[6] * NUM_CANDIDATES)
        rule = rule_on(lanes.runs[0], reward)
        returns, ended = np.zeros(NUM_CANDIDATES), np.zeros(NUM_CANDIDATES, bool)
        while not ended.all():
            _, rewards, terminated, truncated, info = lanes.step(choose(lanes, genes, rng))
            returns += np.where(ended, 0.0, rewards)
            left = "routed_by_fallback" if "Router" in env_id else "finished_by_fallback"
            assert (truncated == terminated)[~ended].all() and (info[left][terminated & ~ended] > 0).all()
            ended |= terminated
        found = max(found, float(returns.max()))
        centre, spread = genes[np.argsort(returns)[-3:]].mean(0), 0.8 * spread
    assert found <= rule + 1e-9 * abs(rule)
