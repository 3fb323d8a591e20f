"""Every faulty setting gets one line."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.cost.engines import find_engine
from infermax_gym.engine.policy import QueueOrder
from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.scheduling.config import BASE, EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.envs.settings import SettingError

RANGE = "or a pair low <= high of such numbers"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workloads": ()}, "workloads must be at least one workload, got ()"),
        (
            {"workloads": "azure-cnov"},
            "workloads has 'azure-cnov', which is neither a preset nor a file; did you mean 'azure-conv'?",
        ),
        ({"costs": ()}, "costs must be at least one cost model, got ()"),
        (
            {"costs": "llama2-7b-a10"},
            "costs has an unknown cost model 'llama2-7b-a10'; did you mean 'llama2-7b-a100'?",
        ),
        ({"costs": "qwen3-8b@h10"}, "costs: no engine 'qwen3-8b@h10' in the table; did you mean GPU 'h100'?"),
        ({"num_requests": 0}, f"num_requests must be a whole number of at least 1, {RANGE}, got 0"),
        ({"num_requests": 2.5}, f"num_requests must be a whole number of at least 1, {RANGE}, got 2.5"),
        ({"num_requests": "many"}, f"num_requests must be a whole number of at least 1, {RANGE}, got 'many'"),
        ({"num_waiting_slots": 0}, "num_waiting_slots must be a whole number in 1..128, got 0"),
        ({"num_running_slots": 129}, "num_running_slots must be a whole number in 1..128, got 129"),
        ({"backlog": (-1, 0)}, f"backlog must be a whole number of at least 0, {RANGE}, got (-1, 0)"),
        ({"backlog": (3, 2)}, f"backlog must be a whole number of at least 0, {RANGE}, got (3, 2)"),
        ({"backlog": (1, 2, 3)}, f"backlog must be a whole number of at least 0, {RANGE}, got (1, 2, 3)"),
        ({"backlog": None}, f"backlog must be a whole number of at least 0, {RANGE}, got None"),
        ({"backlog": True}, f"backlog must be a whole number of at least 0, {RANGE}, got True"),
        ({"time_scale": (0.0, 1.0)}, f"time_scale must be a number above 0, {RANGE}, got (0.0, 1.0)"),
        ({"time_scale": (1.0, math.inf)}, f"time_scale must be a number above 0, {RANGE}, got (1.0, inf)"),
        ({"time_scale": math.nan}, f"time_scale must be a number above 0, {RANGE}, got nan"),
        ({"num_kv_tokens": (15, 99)}, "num_kv_tokens must be at least a block of 16 tokens, got 15"),
        ({"level_shares": ()}, "level_shares must be shares of the token budget that ascend to 1, got ()"),
        ({"level_shares": 0.5}, "level_shares must be shares of the token budget that ascend to 1, got 0.5"),
        (
            {"level_shares": (0.5, 0.5, 1.0)},
            "level_shares must be shares of the token budget that ascend to 1, got (0.5, 0.5, 1.0)",
        ),
        (
            {"level_shares": (-0.5, 1.0)},
            "level_shares must be shares of the token budget that ascend to 1, got (-0.5, 1.0)",
        ),
        ({"decide": "never"}, "decide must be one of 'change', 'event', 'iteration', got 'never'"),
        ({"admit_within_budget": 1}, "admit_within_budget must be True or False, got 1"),
        ({"information": "all"}, "information must be one of 'none', 'noisy', 'oracle', got 'all'"),
        ({"prediction_sigma": -0.1}, "prediction_sigma must be a finite number of at least 0, got -0.1"),
        ({"time_limit_s": 0.0}, "time_limit_s must be a number above 0, got 0.0"),
        ({"ttft_slo_s": -1}, "ttft_slo_s must be a number above 0 or None, got -1"),
        ({"max_decisions": 0}, "max_decisions must be a whole number of at least 1 or None, got 0"),
        ({"reward": "latncy"}, "unknown reward 'latncy'; did you mean 'latency'?"),
        ({"reward": "speed"}, "unknown reward 'speed'; known: latency, ttft, gpu_cost, goodput"),
        ({"reward": 3}, "reward must be the name of a reward or a Reward, got 3"),
        (
            {"base": replace(BASE, queue_order=QueueOrder.RESPONSE_RATIO)},
            "base must be a policy with a FIFO or LINEAR queue order (slots show fixed keys), got 'environment'",
        ),
        ({"base": "spf-headrom"}, "base has an unknown policy 'spf-headrom'; did you mean 'spf-headroom'?"),
        ({"block_size": 0}, "block_size must be a whole number of at least 1, got 0"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be a whole number of at least 1, got 0"),
        ({"max_num_seqs": "8"}, "max_num_seqs must be a whole number of at least 1, got '8'"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    """One line that names the setting, the value and what would be right."""
    for make in (EnvConfig, InferMaxEnv, InferMaxVectorEnv):
        with pytest.raises(SettingError) as caught:
            make(**settings)
        assert str(caught.value) == f"environment: {message}"


ENVS = {
    "InferMax-v0": {"backlog": 3, "time_scale": 1.0, "base": "spf-headroom"},
    "InferMaxKnobs-v0": {"backlog": 3, "time_scale": 1, "interval_s": 2},
    "InferMaxRouter-v0": {"policy": "sarathi", "rate_per_replica": 3.0, "num_replicas": 2},
}


@pytest.mark.parametrize("env_id", ENVS)
def test_settings_as_people_type_them(env_id: str) -> None:
    """A number pins a range, a pair is a range, a string is one name; a reset takes the same."""
    typed: dict[str, Any] = {
        "workloads": "azure-conv",
        "costs": "llama2-7b-a100",
        "num_kv_tokens": np.int64(20_000),
        "num_requests": (2, 5),
        **ENVS[env_id],
    }
    env: Any = gym.make(env_id, **typed).unwrapped
    config = env.config
    assert (config.workloads, config.costs) == (("azure-conv",), ("llama2-7b-a100",))
    assert (config.num_kv_tokens, config.num_requests) == ((20_000, 20_000), (2, 5))
    if env_id == "InferMaxRouter-v0":
        assert (config.rate_per_replica, config.policy.name) == ((3.0, 3.0), "sarathi")
    else:
        assert (config.backlog, config.time_scale) == ((3, 3), (1.0, 1.0))
    arrived = 0 if env_id == "InferMaxRouter-v0" else 3
    lengths = set()
    for seed in range(60):
        env.reset(seed=seed)
        lengths.add(len(workload_of(env)) - arrived)
    assert lengths == {2, 3, 4, 5}
    for name, value in (("workloads", "reasoning"), ("workload", "reasoning"), ("workloads", ["reasoning"])):
        env.reset(seed=0, options={name: value, "num_requests": [4, 4], "costs": "llama3-70b-a100x4"})
        assert workload_of(env).name == "reasoning" and len(workload_of(env)) == 4 + arrived
    singular: Any = gym.make(env_id, workload="reasoning", cost="llama3-70b-a100x4", num_requests=3).unwrapped
    assert (singular.config.workloads, singular.config.costs) == (("reasoning",), ("llama3-70b-a100x4",))


def workload_of(env: Any) -> Any:
    """The requests of the episode under way."""
    return env.run.workload if hasattr(env.run, "workload") else env.run.episode.workload


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_kv_token": 20_000}, "unknown setting 'num_kv_token'; did you mean 'num_kv_tokens'?"),
        ({"workloads": 7}, "workloads must be the name of a preset, the path of a trace or a Workload"),
        ({"workloads": ["azure-conv", "nowhere.csv"]}, "workloads has 'nowhere.csv', which is neither a preset"),
        ({"costs": "abacus"}, "costs has an unknown cost model 'abacus'"),
        ({"num_requests": (5, 2)}, "num_requests must be a whole number of at least"),
        ({"num_kv_tokens": "20k"}, "num_kv_tokens must be a whole number of at least 1"),
        ({"workload": "reasoning", "workloads": "code"}, "setting 'workloads' is given twice"),
    ],
)
def test_errors_of_every_environment(env_id: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        gym.make(env_id, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    if "unknown setting" not in message:
        env = gym.make(env_id)
        with pytest.raises(SettingError) as caught:
            env.reset(options=settings)
        assert message.replace("setting", "reset option") in str(caught.value)


@pytest.mark.parametrize("env_id", ENVS)
def test_what_a_reset_cannot_change(env_id: str) -> None:
    env = gym.make(env_id)
    with pytest.raises(SettingError, match="environment: 'block_size' is fixed when the environment is made"):
        env.reset(options={"block_size": 4})
    with pytest.raises(SettingError, match="environment: options of a reset must be a mapping"):
        env.reset(options=[("num_requests", 3)])  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="unknown reset option 'speed'; known: workloads, start"):
        env.reset(options={"speed": 3})


def test_pinned_ranges_are_drawn_anew_for_each_episode() -> None:
    env = InferMaxEnv(num_requests=2)
    drawn = set()
    for seed in range(6):
        env.reset(seed=seed, options={"num_kv_tokens": (10_000, 20_000)})
        drawn.add(env.run.episode.engine.num_kv_tokens)
    assert len(drawn) == 6 and all(10_000 <= tokens <= 20_000 for tokens in drawn)


def test_router_policies_have_names() -> None:
    with pytest.raises(SettingError, match="policy has an unknown policy 'vllm-v9'; did you mean 'vllm-v"):
        gym.make("InferMaxRouter-v0", policy="vllm-v9")


@pytest.mark.parametrize("env_id", ENVS)
def test_goodput_needs_limits(env_id: str) -> None:
    env = gym.make(env_id, reward="goodput", num_requests=5)
    with pytest.raises(SettingError, match="no request of azure-conv has one; set ttft_slo_s or tpot_slo_s"):
        env.reset(seed=0)
    env.reset(seed=0, options={"ttft_slo_s": 1.0})
    env.reset(seed=0, options={"workload": "mixed"})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: InferMaxEnv(render_mode="svg"),
            ValueError,
            "render_mode must be human, ansi, rgb_array or None, got 'svg'",
        ),
        (
            lambda: InferMaxKnobsEnv(interval_s=0.0),
            ValueError,
            "environment: interval_s must be a finite number above 0, got 0.0",
        ),
    ],
)
def test_errors_of_environments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_change_a_configuration() -> None:
    config = EnvConfig(num_requests=7)
    env = InferMaxEnv(config, num_waiting_slots=3, level_shares=(0.5, 1.0))
    assert (env.config.num_requests, env.layout.num_waiting_slots, env.layout.num_chunk_budgets) == ((7, 7), 3, 2)
    assert config.num_waiting_slots == 16, "the configuration itself stays as it is"
    assert env.config.levels == (256, 512)


def test_levels_follow_the_base_rows_budget() -> None:
    assert EnvConfig(base=replace(BASE, max_num_batched_tokens=100)).levels == (0, 25, 50, 100)


def test_costs_may_be_engines() -> None:
    engine = find_engine("qwen3-8b@h100")
    config = EnvConfig(costs=engine.name, **engine.sizes)
    assert config.costs == (engine.cost,)
    assert (config.num_kv_tokens, config.max_num_seqs) == ((engine.num_kv_tokens,) * 2, 1_024)
