"""The test episodes of a task, drawn, and the digest that says whether they are still the same."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np

from infermax_gym.cluster import FleetRun
from infermax_gym.engine import EngineConfig
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.episode import begin_routing
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Episode, draw_episode
from infermax_gym.suite.tasks import Task, Variant
from infermax_gym.workload import Workload

_DIGITS = 9  # of arrival times: what differs beyond is rounding of a platform's exp or log


@lru_cache(maxsize=32)
def config_of(task: Task) -> EnvConfig | RouterEnvConfig:
    """The environment's configuration, with the first test variant where variants say more."""
    config: EnvConfig | RouterEnvConfig = RouterEnvConfig() if task.is_fleet else EnvConfig()
    return config.changed(**task.settings, **task.options(task.test[0]))


def scheduling_config(task: Task) -> EnvConfig:
    """The configuration of a task with one engine."""
    config = config_of(task)
    assert isinstance(config, EnvConfig)
    return config


def episode_of(task: Task, variant: Variant, seed: int) -> Episode:
    """The requests and the engine of an episode; of a fleet one of its replicas, which are alike."""
    config = config_of(task)
    if isinstance(config, EnvConfig):
        return draw_episode(config, Streams(seed), task.options(variant))
    fleet = fleet_of(task, variant, seed)
    return Episode(fleet.workload, fleet.fleet.replicas[0].config, None)


def fleet_of(task: Task, variant: Variant, seed: int) -> FleetRun:
    """The fleet of an episode of a routing task, before its first request."""
    config = config_of(task)
    assert isinstance(config, RouterEnvConfig)
    return begin_routing(config, Streams(seed), task.options(variant)).fleet


def digest(task: Task) -> str:
    """SHA-256 of everything that a score depends on: settings, and requests and engine of every test episode."""
    found = hashlib.sha256(repr((task.id, task.objective, task.yardstick, sorted(task.settings.items()))).encode())
    for variant in (*task.train, *task.test):
        found.update(repr(variant).encode())
    for variant, seed in task.episodes():
        episode = episode_of(task, variant, seed)
        found.update(str(seed).encode())
        for part in (*_requests(episode.workload), *_engine(episode.engine)):
            found.update(part)
    return found.hexdigest()


def _requests(workload: Workload) -> list[bytes]:
    times = (workload.arrival_s, workload.ttft_slo_s, workload.tpot_slo_s)
    sizes = (workload.num_prompt_tokens, workload.num_output_tokens)
    return [_rounded(a) for a in times] + [np.asarray(a, "<i8").tobytes() for a in sizes]


def _engine(engine: EngineConfig) -> list[bytes]:
    cost = engine.cost
    forms: list[Any] = [*cost.terms, *cost.min_terms]
    sizes = (engine.num_kv_tokens, engine.block_size, engine.max_num_batched_tokens, engine.max_num_seqs)
    return [repr(forms).encode(), repr(sizes).encode()]


def _rounded(times_s: Any) -> bytes:
    return np.round(np.asarray(times_s, "<f8"), _DIGITS).tobytes()
