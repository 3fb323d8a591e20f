"""Conversations of several turns behind shared system prompts: requests whose prompts begin alike.

Each application has a system prompt of its own. A conversation belongs to one application; the prompt of a turn is the
system prompt, all earlier messages and answers, and a new message. Prefix hashes cover prompts and answers, so a turn
can find the answer before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.arrivals import Arrivals
from infermax_gym.workload.lengths import Lengths, LogNormal, Marginal
from infermax_gym.workload.workload import WorkloadError

BLOCK_SIZE = 16
_SYSTEM_PROMPT = LogNormal(mean=1_000.0, sigma=0.7, low=64, high=4_096)
_CHUNK = 256  # conversations drawn at a time, always with the same numbers


@dataclass(frozen=True)
class Conversations:
    """What messages and answers are embedded in.

    Attributes:
        num_applications: how many system prompts there are; the k-th is asked 1/k times as often as the first.
        system_prompt: distribution of their lengths, in tokens.
        mean_turns: mean number of turns, geometrically distributed.
        max_turns: where a conversation ends at the latest.
        pause_s: mean seconds from a turn to the next: its answer, and the user reading, thinking and typing.
        pause_sigma: standard deviation of the logarithm of the (log-normal) pause.
        max_tokens: a conversation ends before a turn whose prompt and answer would be longer.

    Raises:
        WorkloadError: a number is out of range.
    """

    num_applications: int = 8
    system_prompt: Marginal = _SYSTEM_PROMPT
    mean_turns: float = 4.0
    max_turns: int = 32
    pause_s: float = 60.0
    pause_sigma: float = 0.8
    max_tokens: int = 16_384

    def __post_init__(self) -> None:
        if self.num_applications < 1 or self.max_turns < 1 or self.max_tokens < 1:
            raise WorkloadError("Conversations: num_applications, max_turns and max_tokens must be at least 1")
        if not (self.mean_turns >= 1.0 and self.pause_s > 0.0 and self.pause_sigma >= 0.0):
            raise WorkloadError("Conversations: needs mean_turns >= 1, pause_s > 0 and pause_sigma >= 0")

    def sample(self, rng: np.random.Generator, n: int, starts: Arrivals, turns: Lengths) -> dict[str, Any]:
        """Draw the first n requests, as arguments of `Workload`.

        Args:
            rng: must know its seed sequence (`np.random.default_rng` does).
            n: how many.
            starts: when conversations begin.
            turns: lengths of messages (as prompts) and answers (as outputs).
        """
        system_rng, starts_rng, chunks_rng = rng.spawn(3)
        system = self.system_prompt.tokens(system_rng.standard_normal(self.num_applications))
        count = _CHUNK
        while True:
            start_s = starts.sample(_again(starts_rng), count + 1)
            table = self._turns(_again(chunks_rng), start_s[:-1], system, turns)
            table = table[table["arrival_s"] <= start_s[-1]]  # later conversations come after these
            if len(table) >= n:
                break
            count *= 2
        table = table[np.lexsort((table["conversation"], table["arrival_s"]))[:n]]
        names = tuple(f"application-{k}" for k in range(self.num_applications))
        return {
            "arrival_s": table["arrival_s"],
            "num_prompt_tokens": table["prompt"],
            "num_output_tokens": table["output"],
            "tenant": table["application"],
            "tenant_names": names,
            "session": table["conversation"],
            "turn": table["turn"],
            **_hashes(table, system),
        }

    def _turns(
        self, rng: np.random.Generator, start_s: NDArray[np.float64], system: NDArray[np.int64], turns: Lengths
    ) -> Any:
        """(k,) records of all turns of the conversations that start at `start_s`, a multiple of `_CHUNK` of them."""
        parts = []
        odds = 1.0 / np.arange(1, self.num_applications + 1)
        for first in range(0, len(start_s), _CHUNK):
            shape = (_CHUNK, self.max_turns)
            application = rng.choice(self.num_applications, _CHUNK, p=odds / odds.sum())
            num_turns = np.minimum(rng.geometric(1.0 / self.mean_turns, _CHUNK), self.max_turns)
            pause_s = rng.lognormal(np.log(self.pause_s) - 0.5 * self.pause_sigma**2, self.pause_sigma, shape)
            message, answer = (x.reshape(shape) for x in turns.sample(rng, _CHUNK * self.max_turns)[:2])
            total = system[application][:, None] + np.cumsum(message + answer, axis=1)
            table = np.zeros(shape, _TURN)
            table["conversation"] = first + np.arange(_CHUNK)[:, None]
            table["application"] = application[:, None]
            table["turn"] = np.arange(1, self.max_turns + 1)
            table["arrival_s"] = start_s[first : first + _CHUNK, None] + np.cumsum(pause_s, axis=1) - pause_s[:, :1]
            table["prompt"], table["output"] = total - answer, answer
            parts.append(table[(np.arange(self.max_turns) < num_turns[:, None]) & (total <= self.max_tokens)])
        return np.concatenate(parts)


_TURN = np.dtype(
    [("arrival_s", "f8")] + [(name, "i8") for name in ("conversation", "turn", "application", "prompt", "output")]
)


def _again(rng: np.random.Generator) -> np.random.Generator:
    """A generator that begins where `rng` began."""
    seed: Any = rng.bit_generator.seed_seq
    return np.random.default_rng(seed)


def _hashes(table: Any, system: NDArray[np.int64]) -> dict[str, Any]:
    """Hashes of the whole blocks of prompt and answer: the application's at first, then the conversation's own."""
    counts = (table["prompt"] + table["output"]) // BLOCK_SIZE
    edges = np.concatenate(([0], np.cumsum(counts)))
    owner = np.repeat(np.arange(len(table)), counts)
    block = np.arange(edges[-1]) - edges[:-1][owner]
    application = table["application"][owner]
    shared = block < system[application] // BLOCK_SIZE
    source = np.where(shared, application, len(system) + table["conversation"][owner])
    return {
        "prefix_blocks": (source << 32) + block,
        "prefix_start": edges,
        "prefix_block_size": BLOCK_SIZE,
    }
