"""Which batches are measured: enough of each kind that every coefficient of a cost model is seen.

Decodes alone over their number and context; prefills alone over their number, chunk and context; both together. Only
batches that can occur are kept: within the token budget, the sequences and the KV memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from infermax_gym.streams import stream

_DECODES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_DECODE_CONTEXTS = (128, 512, 2_048, 8_192, 32_768)
_PREFILLS = (1, 4, 16)
_CHUNKS = (16, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192)
_PREFILL_CONTEXTS = (0, 2_048, 16_384)
_MIXED_DECODES = (8, 32, 128)
_MIXED_DECODE_CONTEXTS = (512, 2_048)
_MIXED_CHUNKS = (64, 256, 512, 1_024, 4_096)
_MIXED_PREFILL_CONTEXTS = (0, 4_096)


@dataclass(frozen=True)
class Batch:
    """An iteration whose prefills are alike, and whose decodes are alike.

    Attributes:
        num_prefills: prefill requests.
        chunk_tokens: tokens that each of them computes.
        prefill_context_tokens: KV tokens resident for each of them before the pass.
        num_decodes: decode requests.
        decode_context_tokens: KV tokens resident for each of them before the pass.
    """

    num_prefills: int = 0
    chunk_tokens: int = 0
    prefill_context_tokens: int = 0
    num_decodes: int = 0
    decode_context_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that the pass computes."""
        return self.num_prefills * self.chunk_tokens + self.num_decodes

    @property
    def num_kv_tokens(self) -> int:
        """KV tokens resident after the pass."""
        prefill = self.num_prefills * (self.prefill_context_tokens + self.chunk_tokens)
        return prefill + self.num_decodes * (self.decode_context_tokens + 1)

    @property
    def kind(self) -> str:
        """Decode, prefill or mixed."""
        if not self.num_prefills:
            return "decode"
        return "mixed" if self.num_decodes else "prefill"

    @property
    def features(self) -> tuple[int, ...]:
        """The nine features of a batch, in the order of `infermax_gym.cost.features`."""
        c, m, prefills, decodes = self.chunk_tokens, self.prefill_context_tokens, self.num_prefills, self.num_decodes
        return (
            1,
            self.num_tokens,
            int(prefills > 0),
            prefills * (c * c + 2 * c * m),
            prefills,
            prefills * m,
            int(decodes > 0),
            decodes * self.decode_context_tokens,
            decodes,
        )


@dataclass(frozen=True)
class Limits:
    """What an iteration may hold.

    Attributes:
        max_num_batched_tokens: most tokens.
        max_num_seqs: most requests.
        num_kv_tokens: KV memory in tokens.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    num_kv_tokens: int

    def allow(self, batch: Batch) -> bool:
        """Whether a batch can occur."""
        return (
            batch.num_tokens <= self.max_num_batched_tokens
            and batch.num_prefills + batch.num_decodes <= self.max_num_seqs
            and batch.num_kv_tokens <= self.num_kv_tokens
        )


def design(limits: Limits, num_random: int = 0, seed: int = 0) -> list[Batch]:
    """The batches to measure: a grid, each kind from small to large, then some of random sizes between its points.

    Args:
        limits: what an iteration may hold.
        num_random: how many random ones, to see how a fit to the others does between them.
        seed: of the stream "workload" that draws them.
    """
    return [batch for batch in _grid() if limits.allow(batch)] + _random(limits, num_random, seed)


def _random(limits: Limits, count: int, seed: int) -> list[Batch]:
    """Sizes uniform on a log scale, a third of each kind; fewer where too few draws are possible."""
    rng = stream(seed, "workload")

    def draw(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    found: list[Batch] = []
    for attempt in range(50 * count):
        if len(found) == count:
            break
        prefills = Batch(draw(1, 8), draw(16, 8_192), draw(1, 16_384) - 1)
        decodes = Batch(num_decodes=draw(1, 256), decode_context_tokens=draw(64, 32_768))
        mixed = replace(decodes, num_prefills=1, chunk_tokens=prefills.chunk_tokens)
        batch = (decodes, prefills, replace(mixed, prefill_context_tokens=prefills.prefill_context_tokens))[attempt % 3]
        if limits.allow(batch):
            found.append(batch)
    return found


def _grid() -> Iterator[Batch]:
    for decodes, context in product(_DECODES, _DECODE_CONTEXTS):
        yield Batch(num_decodes=decodes, decode_context_tokens=context)
    for prefills, chunk, context in product(_PREFILLS, _CHUNKS, _PREFILL_CONTEXTS):
        yield Batch(prefills, chunk, context)
    for decodes, context, chunk, before in product(
        _MIXED_DECODES, _MIXED_DECODE_CONTEXTS, _MIXED_CHUNKS, _MIXED_PREFILL_CONTEXTS
    ):
        yield Batch(1, chunk, before, decodes, context)
