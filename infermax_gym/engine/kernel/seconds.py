"""How long batches take, by the engine's cost model."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.memory import term_ends_of, theta_of


@inlined
def seconds(s: Any) -> Any:
    """Duration of the batch in seconds, swap transfers not counted."""
    theta = theta_of(s)
    term_end = term_ends_of(s)
    return batch_seconds(
        theta,
        term_end,
        s.floor_context != 0,
        s.num_tokens,
        s.prefill_work,
        s.num_prefills,
        s.prefill_context,
        s.decode_context,
        s.num_decodes,
    )


@compiled
def seconds_with(s: Any, num_tokens: int, context: int) -> Any:
    """Duration of the batch, were a prefill of `num_tokens` tokens after `context` resident ones part of it too."""
    theta = theta_of(s)
    term_end = term_ends_of(s)
    return batch_seconds(
        theta,
        term_end,
        s.floor_context != 0,
        s.num_tokens + num_tokens,
        s.prefill_work + num_tokens * num_tokens + 2 * num_tokens * context,
        s.num_prefills + 1,
        s.prefill_context + context,
        s.decode_context,
        s.num_decodes,
    )


@compiled
def prefill_seconds(s: Any, num_tokens: int) -> Any:
    """Duration of an iteration that is the prefill of `num_tokens` tokens and nothing else."""
    theta = theta_of(s)
    term_end = term_ends_of(s)
    work = num_tokens * num_tokens
    return batch_seconds(theta, term_end, s.floor_context != 0, num_tokens, work, 1, 0, 0, 0)
