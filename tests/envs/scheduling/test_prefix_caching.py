"""Decisions of agents on engines with a prefix cache: whatever they do, its books stay right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, InvariantChecker
from infermax_gym.envs.draws import model_of
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Episode, begin_run
from infermax_gym.envs.scheduling.legal import fill_mask
from infermax_gym.envs.scheduling.step import act, start
from infermax_gym.envs.status import RUNNING_ON
from infermax_gym.workload import Workload
from tests.engine.strategies import examples, with_prefixes
from tests.envs.strategies import hostile_configs


@examples(150)
@given(workload=with_prefixes(10), config=hostile_configs(), seed=st.integers(0, 1_000))
def test_random_actions(workload: Workload, config: EnvConfig, seed: int) -> None:
    config = replace(config, workloads=(workload,), num_requests=len(workload))
    engine = EngineConfig(
        cost=model_of(config.costs[0]),
        num_kv_tokens=int(config.num_kv_tokens[0]) + 8 * config.block_size,
        block_size=config.block_size,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_seqs=config.max_num_seqs,
        num_host_kv_tokens=40,
        prefix_caching=True,
    )
    predicted = workload.num_output_tokens.astype(float)
    run = begin_run(config, Episode(workload, engine, predicted))
    state, lane = run.engine.core, run.lane.record[0]
    rng = np.random.default_rng(seed)
    mask = np.zeros(config.layout.num_actions, np.int8)
    start(state, lane)
    for _ in range(150):
        InvariantChecker(run.engine).check_now()
        if lane["status"] != RUNNING_ON:
            break
        fill_mask(state, lane, mask)
        assert mask.any(), "the agent is asked and may do nothing"
        act(state, lane, int(rng.choice(np.flatnonzero(mask))))
