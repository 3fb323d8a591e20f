"""Threads that share the lanes of a native vector environment; compiled steps let go of the interpreter's lock."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from infermax_gym.envs.settings import size

_THREADS = size(1, 256)

Work = Callable[[int, int], bool]


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
        self._others: list[_Member] = []
        self._let_go: Callable[[], Any] | None = None
        self._process = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Crew, (self.num_threads, self.num_lanes)

    def all_of(self, work: Work) -> bool:
        """Do some work on all lanes; whether it answers True for every stretch.

        Args:
            work: takes the first lane of a stretch and the one behind it.
        """
        if self.num_threads == 1:
            return work(0, self.num_lanes)
        others = self._begun()
        for member in others:
            member.begin(work)
        try:
            mine = work(*self._parts[0])
        finally:
            self._wait(others)
        return all([mine, *(member.answer() for member in others)])

    def close(self) -> None:
        """Let the threads go; the next work begins others."""
        if self._let_go is not None:
            self._let_go()
        self._others = []

    def _begun(self) -> list[_Member]:
        if not self._others or self._process != os.getpid():
            self._others = [_Member(part) for part in self._parts[1:]]
            self._process = os.getpid()
            self._let_go = weakref.finalize(self, _let_go, self._others, self._process)
        return self._others

    def _wait(self, others: list[_Member]) -> None:
        """Nobody may write into the lanes once this has returned."""
        try:
            for member in others:
                member.ended()
        except BaseException:  # Ctrl-C: who is still at work must not be taken for done later
            self.close()
            raise


class _Member:
    """A thread that waits for work on its stretch of lanes: two locks hand it over, a fifth of what a pool takes."""

    def __init__(self, part: tuple[int, int]) -> None:
        self._part = part
        self._work: Work | None = None
        self._answer = False
        self._error: BaseException | None = None
        self._begin, self._end = threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._end.acquire()
        threading.Thread(target=self._serve, name="infermax-lanes", daemon=True).start()

    def begin(self, work: Work | None) -> None:
        """Have some work done; None ends the thread."""
        self._work = work
        self._begin.release()

    def ended(self) -> None:
        """Wait until it is done."""
        self._end.acquire()

    def answer(self) -> bool:
        """What the work answered, or raised."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._answer

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            work, self._work = self._work, None
            if work is None:
                return
            try:
                self._answer = work(*self._part)
            except BaseException as error:
                self._error = error
            del work  # it may hold the environment, which then could not be collected
            self._end.release()


def _let_go(members: list[_Member], process: int) -> None:
    """End the threads of a crew that is no more."""
    if process == os.getpid():
        for member in members:
            member.begin(None)
