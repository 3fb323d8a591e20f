"""Asynchronous scheduling: an iteration is decided when the one before it begins.

The decision counts on the tokens of the iteration under way, but has not seen who arrived during it, and whoever
finishes with it still has its blocks and its place. Where that leaves nothing to run, the engine waits for the end of
the iteration and decides anew, having seen everything.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import inlined
from infermax_gym.engine.kernel.decide import decide
from infermax_gym.engine.kernel.evict import release_withheld


@inlined
def decide_ahead(s: Any) -> None:
    """`decide` while those who finished last still hold their places and blocks, which they let go of then."""
    if s.num_lingering == 0:
        decide(s)
        return
    s.max_num_seqs -= s.num_lingering
    decide(s)
    s.max_num_seqs += s.num_lingering
    s.changed = 1
    _let_go(s)


@inlined
def catch_up(s: Any) -> Any:
    """See all that has happened up to the clock; whether there was anything to see."""
    behind = s.asynchronous and (s.num_lingering > 0 or s.seen_until_s < s.clock_s)
    s.seen_until_s = s.clock_s
    if s.num_lingering > 0:
        _let_go(s)
    return behind


@inlined
def _let_go(s: Any) -> None:
    s.num_lingering = 0
    release_withheld(s)
