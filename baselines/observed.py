"""What a serving engine knows of its traffic: prompts that arrived, tokens so far, and what these cost by its model.

The unit of time is a mean request's time alone on the engine, which means the same on every engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.table.shares import decode_seconds, prefill_seconds, sizes_up_to
from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.layout import FINISHED

if TYPE_CHECKING:
    from infermax_gym.engine.state import Engine

RECENT = 256
"""Requests that count as recent traffic."""

_FIRST_PROMPT = 1000.0
_FIRST_OUTPUT = 256.0
_LONGEST = 200_000.0


@dataclass(frozen=True, eq=False)
class Observed:
    """The traffic of an engine so far.

    Attributes:
        prompts: (k,) recent prompts in tokens; a guess where none has arrived.
        output: mean output in tokens: tokens so far over requests that ended, so that long ones under way count.
        context: mean KV tokens that a decode reads.
        most_running: requests that fit at once, by sequences and by memory.
        prefills_s: (k,) seconds of each prompt's prefill alone.
        lone_s: seconds of an iteration with one decode.
        sizes: (m,) numbers of decodes, and ...
        sizes_s: (m,) ... seconds of iterations with so many.
    """

    prompts: NDArray[np.float64]
    output: float
    context: float
    most_running: float
    prefills_s: NDArray[np.float64]
    lone_s: float
    sizes: NDArray[np.float64]
    sizes_s: NDArray[np.float64]

    @property
    def alone_s(self) -> float:
        """Seconds that a mean request takes with the engine to itself."""
        return float(self.prefills_s.mean()) + self.output * self.lone_s

    @property
    def work_s(self) -> float:
        """Seconds of the engine that a mean request takes, if decodes have the best throughput."""
        return float(self.prefills_s.mean()) + self.output / float((self.sizes / self.sizes_s).max())


def observe(engine: Engine, config: EngineConfig) -> Observed:
    """The traffic so far; changes nothing that a schedule depends on.

    Args:
        engine: between two iterations.
        config: the replica that it is.
    """
    from infermax_gym.engine.kernel.group import disband

    disband(engine.core)
    req = engine.requests[: engine.num_arrived]
    num_finished = int(np.count_nonzero(req["place"] == FINISHED))
    return traffic(config, np.asarray(req["prompt"][-RECENT:], np.float64), int(req["generated"].sum()), num_finished)


def traffic(config: EngineConfig, prompts: NDArray[np.float64], num_generated: int, num_finished: int) -> Observed:
    """The same from what has been counted.

    Args:
        config: the replica.
        prompts: (at most RECENT,) tokens of the latest prompts, in order of arrival.
        num_generated: output tokens so far, of all requests.
        num_finished: requests that have finished.
    """
    prompts = prompts if len(prompts) else np.array([_FIRST_PROMPT])
    output = (float(num_generated) + _FIRST_OUTPUT) / (num_finished + 1.0)
    context = float(prompts.mean()) + 0.5 * output
    most = max(min(config.num_kv_tokens / max(context, 1.0), float(config.max_num_seqs)), 1.0)
    sizes = sizes_up_to(most)
    sizes_s = decode_seconds(config.cost, sizes, context)
    prefills_s = prefill_seconds(config.cost, np.minimum(prompts, _LONGEST))
    return Observed(prompts, output, context, most, prefills_s, float(sizes_s[0]), sizes, sizes_s)


def rounded(tokens: float) -> float:
    """A number of tokens to the next quarter of a power of two, so that small changes change no policy."""
    return float(2.0 ** (np.round(4.0 * np.log2(max(tokens, 1.0))) / 4.0))
