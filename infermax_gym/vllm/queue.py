"""The waiting queue in a policy's order, with the methods of vLLM's `RequestQueue`."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from infermax_gym.vllm.requests import Seen


class PolicyQueue:
    """Waiting requests; the smallest `key + slope * x` is the head, ties go to the earlier arrival.

    Args:
        entry_of: what is remembered of a request, made if it is new.
        enter: sets a request's key; called whenever one joins that has not been in the queue since it last ran.
        position: the x at which moving keys stand; None: no key moves.
    """

    def __init__(
        self,
        entry_of: Callable[[Any], Seen],
        enter: Callable[[Seen, bool], None],
        position: Callable[[int], float] | None,
    ) -> None:
        self._entry_of = entry_of
        self._enter = enter
        self._position = position
        self._sorted: list[tuple[float, int]] = []
        self._waiting: dict[int, Seen] = {}
        self._by_name: dict[str, Seen] = {}
        self._tokens: dict[int, int] = {}
        self._arrays: tuple[Any, Any, Any] | None = None
        self._head: int | None = None
        self.known_tokens = 0

    def add_request(self, request: Any) -> None:
        """A new request joins."""
        entry = self._entry_of(request)
        self._enter(entry, False)
        self._put(entry)

    def prepend_request(self, request: Any) -> None:
        """A preempted request comes back."""
        entry = self._entry_of(request)
        self._enter(entry, True)
        self._put(entry)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Requests that vLLM passed over in this call come back, with the keys that they had."""
        for request in requests:
            self._put(self._entry_of(request))

    def peek_request(self) -> Any:
        """The head."""
        return self._first().request

    def pop_request(self) -> Any:
        """The head, which leaves the queue."""
        entry = self._first()
        self._take(entry)
        return entry.request

    def remove_request(self, request: Any) -> None:
        """A request leaves the queue."""
        self._take(self._by_name[request.request_id])

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Those of some requests that are in the queue leave it."""
        for request in list(requests):
            if request.request_id in self._by_name:
                self._take(self._by_name[request.request_id])

    def rekey(self, set_key: Callable[[Seen], None]) -> None:
        """Give every request its key anew."""
        for entry in self._waiting.values():
            set_key(entry)
        self._sorted = sorted((entry.key, entry.number) for entry in self._waiting.values())
        self._arrays = self._head = None

    def replace_position(self, position: Callable[[int], float] | None) -> None:
        """Another x, or none, for keys that move."""
        self._position = position
        self._arrays = self._head = None

    @property
    def entries(self) -> Iterable[Seen]:
        """Whoever waits, in no particular order."""
        return self._waiting.values()

    def _put(self, entry: Seen) -> None:
        self._waiting[entry.number] = self._by_name[entry.request.request_id] = entry
        self._tokens[entry.number] = entry.known
        self.known_tokens += entry.known
        insort(self._sorted, (entry.key, entry.number))
        self._arrays = self._head = None

    def _take(self, entry: Seen) -> None:
        del self._waiting[entry.number], self._by_name[entry.request.request_id]
        self.known_tokens -= self._tokens.pop(entry.number)
        del self._sorted[bisect_left(self._sorted, (entry.key, entry.number))]
        self._arrays = self._head = None

    def _first(self) -> Seen:
        if not self._sorted:
            raise IndexError("the queue is empty")
        if self._position is None:
            return self._waiting[self._sorted[0][1]]
        if self._head is None:
            self._head = self._smallest(self._position(len(self._sorted)))
        return self._waiting[self._head]

    def _smallest(self, x: float) -> int:
        """Number of the request with the smallest key at x, the earliest of several."""
        numbers, keys, slopes = self._columns()
        return int(numbers[np.argmin(keys + slopes * x)])

    def _columns(self) -> tuple[Any, Any, Any]:
        if self._arrays is None:
            entries = sorted(self._waiting.values(), key=lambda entry: entry.number)
            self._arrays = (
                np.array([entry.number for entry in entries]),
                np.array([entry.key for entry in entries]),
                np.array([entry.slope for entry in entries]),
            )
        return self._arrays

    def moved(self) -> None:
        """The clock has moved: the head may be another."""
        self._head = None

    def __bool__(self) -> bool:
        return bool(self._sorted)

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[Any]:
        if self._position is None:
            return iter([self._waiting[number].request for _, number in self._sorted])
        numbers, keys, slopes = self._columns()
        order = np.lexsort((numbers, keys + slopes * self._position(len(self._sorted))))
        return iter([self._waiting[int(numbers[i])].request for i in order])

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(iter(self))[::-1])

    def __contains__(self, request: Any) -> bool:
        return request.request_id in self._by_name
