"""Work on all cores until a given moment."""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.pool import Pool
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OutOfTime(Exception):  # noqa: N818 - not an error: what had finished is kept
    """The moment came before the work was done."""


class Workers:
    """Processes that compute side by side; a context manager that ends them, however long they would take.

    They are copies of this process where the system can make some, so that what is compiled here is compiled there.

    Args:
        count: how many processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = _pool(count)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def results(
        self, function: Callable[[Item], Result], items: Sequence[Item], until: float
    ) -> Iterator[tuple[Item, Result]]:
        """Items with their results, in the order in which they are done.

        Args:
            function: of a module, since it travels to other processes, as items and results do.
            items: what it is called with.
            until: a moment of `time.monotonic`.

        Raises:
            OutOfTime: that moment has come; what was not finished has been dropped.
        """
        pending = self._pool.imap_unordered(partial(_numbered, function), list(enumerate(items)))
        for _ in items:
            try:
                left_s = until - time.monotonic()  # what is done by then counts, what is done after it does not
                if left_s <= 0.0:
                    raise multiprocessing.TimeoutError
                number, result = pending.next(left_s)
            except multiprocessing.TimeoutError:
                self._end()
                self._pool = _pool(self.count)
                raise OutOfTime from None
            yield items[number], result


def _pool(count: int) -> Pool:
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if can_fork else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on, about threads of other packages
        return context.Pool(count, _ignore_interrupts)


def _numbered(function: Callable[[Item], Result], item: tuple[int, Item]) -> tuple[int, Result]:
    return item[0], function(item[1])


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the first one decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
