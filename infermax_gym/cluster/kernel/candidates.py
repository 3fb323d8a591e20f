"""Which replicas may get a request."""

from __future__ import annotations

from typing import Any

from infermax_gym.cluster.kernel.memory import cores_of
from infermax_gym.compile import inlined


@inlined
def can_hold(s: Any, q: Any) -> Any:
    """Whether an engine could ever hold a request; the engine's own test on arrival."""
    peak_blocks = (q.prompt + q.output - 1 + s.block_size - 1) // s.block_size
    return peak_blocks <= s.num_blocks and q.prompt + q.output <= s.longest_allowed


@inlined
def is_candidate(f: Any, i: int, q: Any) -> Any:
    """Whether replica i may get request q."""
    return q.prompt + q.output <= f.easy_tokens or can_hold(cores_of(f)[i], q)
