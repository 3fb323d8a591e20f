"""`cached_tokens`: what the prefix cache of an engine would give, for those who choose between engines."""

from __future__ import annotations

from infermax_gym.engine.kernel import prefix
from infermax_gym.engine.state import Engine


def cached_tokens(engine: Engine, request: int, num_tokens: int | None = None) -> int:
    """Tokens that a request would find in the prefix cache if it were admitted now; a multiple of the block size.

    It costs a look at each run of blocks that the request shares with others, however long its prompt is. Compiled
    code calls `infermax_gym.engine.kernel.prefix.cached_tokens(record, leaf, num_tokens)` instead, with `leaf` the
    request's number in the workload that the engine was allocated with.

    Args:
        engine: any engine, with or without a prefix cache (0 then).
        request: number in the engine's workload, of one that waits or is to come.
        num_tokens: known tokens of the request; its prompt by default.

    Raises:
        IndexError: the engine knows no such request.
    """
    row = engine.requests[request]
    if not engine.record["prefix_caching"][0]:
        return 0
    known = int(row["prompt"]) if num_tokens is None else num_tokens
    return int(prefix.cached_tokens(engine.core, int(engine.arrays["holds"]["leaf"][request]), known))
