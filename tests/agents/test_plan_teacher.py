"""Plans as demonstrations: played action by action they are the same schedule."""

from __future__ import annotations

import numpy as np
import pytest

from infermax_gym.agents.plan_teacher import NotPlayableError, demonstrate_plan
from infermax_gym.baselines.optimum.annealing.anneal import Annealer
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan, Step, simulate_plan
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.workload import Workload


def environment(workload: Workload, num_kv_tokens: int) -> InferMaxEnv:
    config = EnvConfig(
        workloads=(workload,),
        num_requests=len(workload),
        num_kv_tokens=(num_kv_tokens, num_kv_tokens),
        block_size=1,
        num_waiting_slots=16,
        num_running_slots=16,
        decide="iteration",
    )
    return InferMaxEnv(config, flat=True)


@pytest.mark.parametrize("seed", range(6))
def test_annealed_plans_are_played_as_they_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [(int(i), int(o)) for i, o in rng.integers(1, 40, (12, 2))]
    instance = Instance.of(lengths, kv_tokens=160)
    annealer = Annealer(instance, "latency", seed=seed)
    annealer.advance(200)
    plan = annealer.plan()
    expected = simulate_plan(instance, plan)
    env = environment(instance.workload(), instance.kv_tokens)
    shown = demonstrate_plan(plan, env)
    np.testing.assert_allclose(env.run.engine.requests["finish_s"], expected.finish_s, rtol=1e-12)
    assert env.run.engine.requests["preemptions"].sum() == expected.num_preemptions
    assert shown.masks[np.arange(len(shown)), shown.actions].all()


def test_a_plan_that_holds_is_refused() -> None:
    workload = Instance.of([(2, 3), (2, 3)], kv_tokens=10).workload()
    plan = Plan((Step(((0, 2), (1, 2))), Step(((0, 1),)), Step(((0, 1), (1, 1))), Step(((1, 1),))))
    with pytest.raises(NotPlayableError, match="request 1 is held"):
        demonstrate_plan(plan, environment(workload, 10))
