"""Whether the engine makes progress; `infermax_gym.engine.kernel.advance` has the twin."""

from __future__ import annotations

_WASTE_LIMIT = 32  # of `infermax_gym.engine.layout`


class Guard:
    """The engine's progress guard: holds after too many iterations without a token, or with too much recomputed.

    Args:
        num_kv_tokens: what the KV memory holds.
        chunk: most tokens of a prefill in an iteration.
    """

    def __init__(self, num_kv_tokens: int, chunk: int) -> None:
        self._capacity = num_kv_tokens
        self.install(chunk)
        self._stalled = 0
        self._wasteful = False
        self._computed = self._recomputed = self._cached = 0
        self._finished = self._watched = False

    def install(self, chunk: int) -> None:
        """Prefills are cut to other chunks from now on."""
        self._stall_limit = 64 + 2 * -(-self._capacity // chunk)

    @property
    def holds(self) -> bool:
        """Whether only the earliest arrivals go on."""
        return self._wasteful or self._stalled > self._stall_limit

    def found(self, again: int, num_tokens: int) -> None:
        """A request has found tokens in the prefix cache, some of which it had computed before."""
        self._recomputed -= again
        self._cached += num_tokens - again

    def lost(self, num_tokens: int) -> None:
        """Computed tokens have been lost to a preemption."""
        self._recomputed += num_tokens

    def finished(self) -> None:
        """A request has finished."""
        self._finished = True

    def ran(self, num_tokens: int, emitted: bool) -> None:
        """An iteration of so many tokens has been decided; whether somebody gets an output token in it."""
        self._computed += num_tokens
        self._stalled = 0 if emitted else self._stalled + 1
        self._watched = num_tokens > 0

    def look(self) -> None:
        """Once the last iteration's outcome is known."""
        if not self._watched:
            return
        needed = self._computed - self._recomputed + self._cached
        if self._recomputed > _WASTE_LIMIT * (needed + self._capacity):
            self._wasteful = True
        elif self._finished:
            self._wasteful = False
        self._finished = self._watched = False
