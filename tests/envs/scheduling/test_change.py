"""`decide="change"`: what a RUN holds back is held until a request arrives, finishes or ends its prefill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import Kind
from infermax_gym.testing import random_legal

CONFIG = EnvConfig(num_requests=60, backlog=(0, 30), num_kv_tokens=(6_000, 12_000), level_shares=(1.0,))
RUN = 0


def moment(env: InferMaxEnv) -> tuple[int, int, int]:
    """Arrivals, finishes and running prefills so far."""
    core: Any = env.run.engine.record[0]
    return int(core["next_arrival"]), int(core["num_finished"]), int(core["num_running_prefills"])


def num_decisions(decide: str, seed: int) -> int:
    """Of an agent that holds admissions back every other time, and else admits the first."""
    env = InferMaxEnv(CONFIG, flat=True, decide=decide)
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    before = None
    while True:
        mask = env.action_masks()
        action = random_legal(mask, env.layout, rng)
        admits = np.flatnonzero(mask[env.layout.encode(Kind.ADMIT, 0) : env.layout.encode(Kind.PREEMPT, 0)])
        if mask[RUN]:
            action = RUN if not admits.size or rng.random() < 0.5 else env.layout.encode(Kind.ADMIT, int(admits[0]))
        if decide == "change" and before is not None and mask[RUN]:
            assert moment(env) != before
        before = moment(env) if action == RUN else None
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return int(info["metrics"]["num_decisions"])


@pytest.mark.parametrize("seed", range(4))
def test_asked_only_after_a_change(seed: int) -> None:
    assert num_decisions("change", seed) < num_decisions("event", seed)


def test_within_the_budget_nobody_joins_who_would_get_no_token() -> None:
    """ADMIT is legal exactly where it is without the setting and running requests leave tokens of the budget."""
    env = InferMaxEnv(CONFIG, flat=True, admit_within_budget=True, max_num_batched_tokens=256)
    rng = np.random.default_rng(3)
    env.reset(seed=3)
    full = 0
    for _ in range(600):
        run = env.run.engine
        core, req = run.record[0], run.requests[run.arrays["run"][: run.record["num_running"][0]]]
        prefills = req[req["in_prefill"] == 1]
        lacking = int((prefills["prompt"] + prefills["generated"] - prefills["computed"]).sum())
        spare = int(core["token_budget"]) - (len(req) - len(prefills)) - lacking
        admits = env.action_masks()[env.layout.encode(Kind.ADMIT, 0) : env.layout.encode(Kind.PREEMPT, 0)]
        full += spare <= 0
        assert spare > 0 or not admits.any()
        _, _, terminated, truncated, _ = env.step(random_legal(env.action_masks(), env.layout, rng))
        if terminated or truncated:
            env.reset()
    assert full > 50
