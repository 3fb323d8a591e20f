"""Drawing an episode: requests, load, memory and cost model, all fixed before the first decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost import CostModel
from infermax_gym.engine import EngineConfig
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.envs.config import EnvConfig, Range
from infermax_gym.envs.lane import LANE, Lane
from infermax_gym.streams import stream
from infermax_gym.workload import PRESETS, Workload, load_workload, make_workload

OPTIONS = ("workload", "start", "num_requests", "backlog", "time_scale", "num_kv_tokens", "cost")
"""What `reset(options=...)` may pin: a workload, preset name or path; its first request (not for presets);
and single values of the settings of the same name."""


@dataclass(frozen=True)
class Episode:
    """An episode before its first decision.

    Attributes:
        workload: the requests.
        engine: the replica.
        predicted: (n,) predicted output tokens, or None.
    """

    workload: Workload
    engine: EngineConfig
    predicted: NDArray[np.float64] | None


class Streams:
    """The random streams of an environment: adding a draw to one does not move the others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.workload = stream(seed, "workload")
        self.predictor = stream(seed, "predictor")


def streams_of_lanes(old: Sequence[Streams], seed: int | Sequence[int | None] | None, num_lanes: int) -> list[Streams]:
    """The streams of a vector environment's lanes at a reset.

    Args:
        old: those of the episodes before, empty at the first reset.
        seed: lane i gets seed + i, or the i-th of a sequence; a lane without a seed goes on with its old streams, or
            begins with fresh ones.
        num_lanes: how many.

    Raises:
        ValueError: a sequence of another length.
    """
    if isinstance(seed, int | np.integer):
        seeds: list[int | None] = [int(seed) + i for i in range(num_lanes)]
    else:
        seeds = [None] * num_lanes if seed is None else list(seed)
    if len(seeds) != num_lanes:
        raise ValueError(f"need one seed for each of {num_lanes} lanes, got {len(seeds)}")
    fresh: list[int] = np.random.SeedSequence().generate_state(num_lanes, np.uint64).tolist()
    others = old or [Streams(value // 2) for value in fresh]
    return [other if one is None else Streams(one) for one, other in zip(seeds, others, strict=True)]


def draw(value: Range, rng: np.random.Generator) -> float:
    """A number from a range: log-uniform if it is positive and spans a factor of 4, else uniform."""
    low, high = value
    if low == high:
        return float(low)
    if low > 0.0 and high >= 4.0 * low:
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    return float(rng.uniform(low, high))


def draw_episode(config: EnvConfig, streams: Streams, options: Mapping[str, Any] | None = None) -> Episode:
    """Draw an episode; `options` pins any of `OPTIONS`.

    Raises:
        ValueError: an option is unknown or out of range.
        WorkloadError: a workload cannot be read or is shorter than an episode.
    """
    pinned = dict(options or {})
    unknown = sorted(set(pinned) - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown reset option {unknown[0]!r}; known: {', '.join(OPTIONS)}")
    rng = streams.workload
    # Every draw happens whether or not it is pinned, so that pinning one thing does not change another.
    source: str | Workload = config.workloads[int(rng.integers(len(config.workloads)))]
    time_scale = draw(config.time_scale, rng)
    num_kv_tokens = round(draw(config.num_kv_tokens, rng))
    backlog = round(draw(config.backlog, rng))
    cost: str | CostModel = config.costs[int(rng.integers(len(config.costs)))]
    slice_seed = int(rng.integers(2**63))
    backlog = int(pinned.get("backlog", backlog))
    count = int(pinned.get("num_requests", config.num_requests)) + backlog
    if backlog < 0 or count <= backlog:
        raise ValueError(f"an episode needs num_requests >= 1 and backlog >= 0, got {count - backlog} and {backlog}")
    workload = trace_slice_of(pinned.get("workload", source), count, slice_seed, pinned.get("start"))
    workload = _paced(workload, backlog, float(pinned.get("time_scale", time_scale)))
    workload = with_slos(workload, config.slo_ttft_s, config.slo_tpot_s)
    engine = EngineConfig(
        cost=config.cost_model(pinned.get("cost", cost)),
        num_kv_tokens=int(pinned.get("num_kv_tokens", num_kv_tokens)),
        block_size=config.block_size,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_seqs=config.max_num_seqs,
    )
    return Episode(workload, engine, noisy_lengths(workload, config.information, config.prediction_sigma, streams))


@lru_cache(maxsize=16)
def _trace(path: str) -> Workload:
    return load_workload(path)


def trace_slice_of(source: str | Workload, count: int, seed: int, start: int | None) -> Workload:
    """`count` requests of a preset, drawn with `seed`, or of a trace, from `start` or a place that `seed` picks."""
    if isinstance(source, str) and source in PRESETS:
        return make_workload(source, count, seed=seed)
    whole = source if isinstance(source, Workload) else _trace(source)
    last = max(len(whole) - count, 0)
    first = seed % (last + 1) if start is None else int(start)
    return whole.trace_slice(first, count)


def _paced(workload: Workload, backlog: int, time_scale: float) -> Workload:
    """Scale arrivals; the first `backlog` requests are there at 0 and the others follow from there."""
    workload = workload.scaled(time_scale)
    if backlog == 0:
        return workload
    return replace(workload, arrival_s=np.maximum(workload.arrival_s - workload.arrival_s[backlog - 1], 0.0))


def with_slos(workload: Workload, slo_ttft_s: float | None, slo_tpot_s: float | None) -> Workload:
    """The workload, with objectives for requests that have none of their own."""
    if slo_ttft_s is None and slo_tpot_s is None:
        return workload
    ttft_s = math.inf if slo_ttft_s is None else slo_ttft_s
    tpot_s = math.inf if slo_tpot_s is None else slo_tpot_s
    return replace(
        workload,
        ttft_slo_s=np.where(np.isfinite(workload.ttft_slo_s), workload.ttft_slo_s, ttft_s),
        tpot_slo_s=np.where(np.isfinite(workload.tpot_slo_s), workload.tpot_slo_s, tpot_s),
    )


def noisy_lengths(workload: Workload, information: str, sigma: float, streams: Streams) -> NDArray[np.float64] | None:
    """(n,) what an agent is told of output lengths: None, O exp(sigma Z - sigma^2 / 2) or, as an oracle, O."""
    noise = streams.predictor.standard_normal(len(workload))
    if information == "none":
        return None
    sigma = sigma if information == "noisy" else 0.0
    truth = workload.num_output_tokens.astype(np.float64)
    return np.asarray(np.maximum(truth * np.exp(sigma * noise - 0.5 * sigma**2), 1.0))


@dataclass
class Run:
    """An episode under way.

    Attributes:
        episode: what was drawn.
        engine: the engine's state.
        lane: the agent's side of it.
        recorder: what the engine's log held whenever it was emptied.
    """

    episode: Episode
    engine: Engine
    lane: Lane
    recorder: Recorder

    def copy(self) -> Run:
        """An independent copy."""
        return Run(self.episode, self.engine.copy(), self.lane.copy(), self.recorder.copy())


def begin_run(config: EnvConfig, episode: Episode, *, record_schedule: bool = False) -> Run:
    """Lay out the memory of an episode; the engine stands before its first arrival."""
    engine = allocate(episode.workload, episode.engine, config.base, episode.predicted, record_schedule=record_schedule)
    record = np.zeros(1, LANE)
    record["num_chunk_budgets"] = len(config.level_shares)
    record["num_waiting_slots"] = config.num_waiting_slots
    record["num_running_slots"] = config.num_running_slots
    record["every_iteration"] = config.decide == "iteration"
    record["on_change"] = config.decide == "change"
    record["within_budget"] = config.admit_within_budget
    record["by_victim_key"] = int(config.base.victim)
    record["time_limit_s"] = config.time_limit_s
    levels = np.array(config.levels, np.int64)
    max_num_seqs = int(engine.record["max_num_seqs"][0])
    return Run(episode, engine, Lane(record, levels, 4 * max_num_seqs + 8), Recorder())
