"""Threads that share the lanes of a native vector environment; compiled steps let go of the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

from infermax_gym.envs.settings import size

_THREADS = size(1, 256)


class Crew:
    """Threads, the caller's among them, each with a stretch of lanes.

    The others begin with the first work, and anew in a process forked since.

    Args:
        num_threads: the caller itself included.
        num_lanes: lanes.

    Raises:
        SettingError: the number of threads is not a whole number in 1..256.
    """

    def __init__(self, num_threads: Any, num_lanes: int) -> None:
        self.num_threads = min(_THREADS("num_threads", num_threads), num_lanes)
        self.num_lanes = num_lanes
        bounds = [num_lanes * k // self.num_threads for k in range(self.num_threads + 1)]
        self._parts = list(pairwise(bounds))
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Crew, (self.num_threads, self.num_lanes)

    def all_of(self, work: Callable[[int, int], bool]) -> bool:
        """Do some work on all lanes; whether it answers True for every stretch.

        Args:
            work: takes the first lane of a stretch and the one behind it.
        """
        if self.num_threads == 1:
            return work(0, self.num_lanes)
        pool = self._begun()
        others = [pool.submit(work, *part) for part in self._parts[1:]]
        try:
            mine = work(*self._parts[0])
        finally:
            wait(others)  # nobody may write into the lanes once this has returned
        return mine and all(other.result() for other in others)

    def close(self) -> None:
        """Let the threads go; the next work begins others."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None

    def _begun(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self.num_threads - 1, thread_name_prefix="infermax-lanes")
            self._process = os.getpid()
        return self._pool
