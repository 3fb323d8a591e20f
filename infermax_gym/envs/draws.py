"""Chance in environments: named streams, ranges, and which requests of a source an episode gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost import COSTS, CostModel
from infermax_gym.envs.rewards import Component, Reward
from infermax_gym.envs.settings import Range, SettingError
from infermax_gym.streams import stream
from infermax_gym.workload import PRESETS, Traffic, Workload, load_workload, make_workload
from infermax_gym.workload.predictions import noisy_lengths
from infermax_gym.workload.presets import UNIFORM


class Streams:
    """The random streams of an environment: adding a draw to one does not move the others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.workload = stream(seed, "workload")
        self.predictor = stream(seed, "predictor")

    def copy(self) -> Streams:
        """Independent generators in the same state."""
        copy = Streams(self.seed)
        copy.workload.bit_generator.state = self.workload.bit_generator.state
        copy.predictor.bit_generator.state = self.predictor.bit_generator.state
        return copy


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


class Draws:
    """The draws of one episode, of which some settings may be pinned.

    Every draw of the configuration happens whether or not its setting is pinned, so that pinning one does not change
    another; what is pinned to a range or to several names is drawn from a stream of its own.

    Args:
        config: the ranges and names.
        pinned: settings of the same names that take their place.
        rng: the episode's stream.
    """

    def __init__(self, config: Any, pinned: Mapping[str, Any], rng: np.random.Generator) -> None:
        self.config = config
        self.pinned = pinned
        self.rng = rng
        self._own = np.random.default_rng(rng.bit_generator.state["state"]["state"])

    def number(self, name: str) -> float:
        """A number of a range."""
        drawn = draw(getattr(self.config, name), self.rng)
        return draw(self.pinned[name], self._own) if name in self.pinned else drawn

    def optional_number(self, name: str) -> float | None:
        """A number of a range, or None where there is no range; nothing is drawn for none."""
        own = getattr(self.config, name)
        drawn = None if own is None else draw(own, self.rng)
        if name not in self.pinned:
            return drawn
        return None if self.pinned[name] is None else draw(self.pinned[name], self._own)

    def one(self, name: str) -> Any:
        """One of several names or things."""
        known = getattr(self.config, name)
        drawn = known[int(self.rng.integers(len(known)))]
        if name not in self.pinned:
            return drawn
        some = self.pinned[name]
        return some[int(self._own.integers(len(some)))]

    def seed(self) -> int:
        """A seed for whatever else is random."""
        return int(self.rng.integers(2**63))

    def setting(self, name: str) -> Any:
        """A setting that is not drawn."""
        return self.pinned.get(name, getattr(self.config, name))


@lru_cache(maxsize=16)
def _trace(path: str) -> Workload:
    return load_workload(path)


def trace_slice_of(source: str | Workload, count: int, seed: int, start: int | None) -> Workload:
    """`count` requests of a preset, drawn with `seed`, or of a trace, from `start` or a place that `seed` picks."""
    if isinstance(source, str) and (source in PRESETS or source.startswith(UNIFORM)):
        return make_workload(source, count, seed=seed)
    whole = source if isinstance(source, Workload) else _trace(source)
    last = max(len(whole) - count, 0)
    first = seed % (last + 1) if start is None else start
    return whole.trace_slice(first, count)


def traffic_of(draws: Draws) -> Traffic:
    """Who sends the requests of an episode, and when."""
    clients = draws.optional_number("concurrency")
    return Traffic(
        None if clients is None else round(clients),
        draws.setting("think_s"),
        draws.setting("ramp_up_s"),
        draws.setting("sessions"),
    )


def model_of(cost: str | CostModel) -> CostModel:
    """The cost model of a name, or itself."""
    return COSTS[cost] if isinstance(cost, str) else cost


def with_limits(workload: Workload, ttft_slo_s: float | None, tpot_slo_s: float | None, reward: Reward) -> Workload:
    """The workload with limits for requests that have none of their own, see `Workload.with_limits`.

    Raises:
        SettingError: the reward counts requests within their limits, and none has any.
    """
    limited = workload.with_limits(ttft_slo_s, tpot_slo_s)
    if reward.weights[Component.NUM_GOOD] and not np.isfinite([limited.ttft_slo_s, limited.tpot_slo_s]).any():
        raise SettingError(
            f"environment: reward {reward.name!r} counts requests within their limits, and no request of "
            f"{workload.name or 'the workload'} has one; set ttft_slo_s or tpot_slo_s"
        )
    return limited


def predicted_lengths(
    workload: Workload, information: str, sigma: float, streams: Streams
) -> NDArray[np.float64] | None:
    """(n,) what an agent sees of output lengths: None, noisy ones, or with "oracle" the true ones."""
    noise = streams.predictor.standard_normal(len(workload))
    if information == "none":
        return None
    return noisy_lengths(workload.num_output_tokens, sigma if information == "noisy" else 0.0, noise)
