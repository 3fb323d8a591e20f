"""Named random streams: one seed, one independent generator for each use of randomness.

A draw added in one stream never moves another one, so two policies that face the same seed also face the same
requests, however much randomness each of them uses.
"""

from __future__ import annotations

import operator
from typing import Literal, get_args

import numpy as np

StreamName = Literal["workload", "predictor", "policy", "exploration", "router"]

STREAM_NAMES: tuple[StreamName, ...] = get_args(StreamName)
"""Every stream. Append only: a stream's position is its spawn key, which results depend on."""


def stream(seed: int, name: StreamName) -> np.random.Generator:
    """The generator of one named stream of a seed, at its beginning.

    Args:
        seed: any integer that is not negative.
        name: which stream.

    Returns:
        A PCG64 generator, the same in every process and on every platform for the same arguments.

    Raises:
        ValueError: the seed is negative or not an integer, or there is no such stream.

    Example:
        >>> from infermax_gym.streams import stream
        >>> bool(stream(0, "workload").random() == stream(0, "workload").random())
        True
    """
    if name not in STREAM_NAMES:
        raise ValueError(f"no stream is called {name!r}; expected one of {', '.join(STREAM_NAMES)}")
    try:
        entropy = operator.index(seed)
    except TypeError:
        raise ValueError(f"seed must be an integer, got {seed!r}") from None
    if entropy < 0:
        raise ValueError(f"seed must not be negative, got {entropy}")
    sequence = np.random.SeedSequence(entropy, spawn_key=(STREAM_NAMES.index(name),))
    return np.random.Generator(np.random.PCG64(sequence))
