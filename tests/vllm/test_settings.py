from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.table.shares import HRRN_SHARE
from infermax_gym.cost.engines.table import find_engine
from infermax_gym.engine.policy import Policy
from infermax_gym.vllm import PlugInError, as_served
from infermax_gym.vllm.admission import Limits
from infermax_gym.vllm.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]


def read(**given: Any) -> Any:
    return read_settings({"infermax": given})


def test_a_policy_by_name_gets_the_two_knobs_of_vllm() -> None:
    policy = read(policy="spf-headroom").policy
    assert policy == as_served(POLICIES["spf-headroom"])
    assert policy.self_preemption_ends and not policy.admit_after_preemption
    assert policy.headroom_tokens == 50.0


def test_knobs_are_set_anew() -> None:
    assert read(policy="spf-headroom", knobs={"headroom_tokens": 5.0}).policy.headroom_tokens == 5.0


def test_a_policy_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", "watermark": 0.1}))
    policy = read(policy=str(tmp_path / "mine.json")).policy
    assert policy == as_served(Policy("mine", watermark=0.1))


def test_sizes_that_are_shares_follow_from_the_replica() -> None:
    settings = read(policy="hrrn-share", cost="gpt-oss-120b@h200")
    found = find_engine("gpt-oss-120b@h200")
    limits = Limits(found.num_kv_tokens // 16, 16, found.max_num_batched_tokens, found.max_num_seqs, 32_768, 32_768)
    resolved = HRRN_SHARE.resolve(limits.engine(found.cost))
    assert settings.policy_on(limits) == as_served(resolved) != settings.policy
    assert resolved.max_num_batched_tokens is not None and resolved.max_num_batched_tokens < limits.token_budget


def test_an_evolved_agent_is_its_policy() -> None:
    policy = read(agent="conv-evolved").policy
    assert policy.name == "conv-evolved"
    assert policy.max_running == 248


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"policy": "vllm-v0"}, "phase_order is PREFILL_FIRST"),
        ({"policy": "srpt-oracle"}, "preempt_for_waiting is True"),
        ({"policy": "best-fit"}, "on_misfit is SKIP"),
        ({"policy": "fastserve"}, "chunking is False"),
        ({"policy": "dynamic-chunk"}, "max_iteration_s is 0.05"),
        ({"policy": "vtc-sarathi"}, "queue_order is FAIR"),
        ({"policy": "no-such"}, "unknown policy 'no-such'"),
        ({"policy": "none.json"}, "none.json: cannot be read"),
        ({"policy": "sarathi", "knobs": {"watermrak": 1}}, "unknown entry 'watermrak'"),
        ({"policy": "sarathi", "agent": "generalist"}, "not both"),
        ({"agent": "conv-ppo"}, "is a scorer"),
        ({"agent": "any-engine"}, 'give "cost": NAME'),
        ({"agent": "any-engine", "without": ["preempt"]}, "without is for controllers; this is a selector"),
        ({"agent": "no-such"}, "cannot be read"),
        ({"policy": "llf"}, "what iterations cost"),
        ({"policy": "spf-share"}, "what iterations cost"),
        ({"policy": "spf-share", "knobs": {"max_running": 3}}, "the knobs of spf-share follow from the engine"),
        ({"polcy": "sarathi"}, "unknown setting 'polcy'"),
        ({"policy": "sarathi", "log_mib": 0}, "at least 1"),
        ({}, "nothing to do"),
    ],
)
def test_refusals_are_one_line_that_names_what_is_wrong(given: dict[str, Any], says: str) -> None:
    with pytest.raises(PlugInError) as error:
        read(**given)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_no_settings_at_all() -> None:
    with pytest.raises(PlugInError, match="nothing to do"):
        read_settings({})


def test_every_policy_is_either_served_or_refused_by_a_knob_of_it() -> None:
    for policy in POLICIES.values():
        try:
            served = as_served(policy)
        except PlugInError as error:
            knob = str(error).split(": ", 1)[1].split(" is ")[0]
            assert hasattr(policy, knob)
        else:
            assert served.name == policy.name


def test_no_compiler_is_needed_for_settings() -> None:
    """Inside vLLM, numba is vLLM's, and torch too."""
    code = (
        "from infermax_gym.vllm.settings import read_settings; import sys;"
        "read_settings({'infermax': {'policy': 'llf', 'cost': 'llama2-7b-a100'}});"
        "read_settings({'infermax': {'agent': 'conv-evolved'}});"
        "read_settings({'infermax': {'agent': 'any-engine', 'cost': 'llama2-7b-a100'}});"
        "import infermax_gym.vllm.scheduler;"
        "print([name for name in ('numba', 'torch', 'vllm') if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
