"""The waiting queue in a policy's order, with the methods of vLLM's `RequestQueue`.

Requests lie in no order, each a column of one table; the head is looked for when it is asked for. So a policy whose
keys all change at once costs a few operations on whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from infermax_gym.vllm.columns import (
    GENERATED,
    INDEX,
    KEY,
    KNOWN,
    NUM_COLUMNS,
    NUMBER,
    PREDICTION,
    SLOPE,
    Table,
)
from infermax_gym.vllm.requests import Seen


class PolicyQueue:
    """Waiting requests; the smallest `key + slope * x` is the head, ties go to the earlier arrival.

    Args:
        entry_of: what is remembered of a request, made if it is new.
        enter: sets a request's key; called whenever one joins that has not been in the queue since it last ran.
        position: the x at which moving keys stand; None: no key moves.
        describe: the column of a request whose key is set.
    """

    def __init__(
        self,
        entry_of: Callable[[Any], Seen],
        enter: Callable[[Seen, bool], None],
        position: Callable[[int], float] | None,
        describe: Callable[[Seen], Sequence[float]],
    ) -> None:
        self._entry_of = entry_of
        self._enter = enter
        self._position = position
        self._describe = describe
        self._all = np.zeros((NUM_COLUMNS, 64))
        self._entries: list[Seen] = []
        self._slots: dict[str, int] = {}
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
        self._take(self._entries[self._slots[request.request_id]])

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Those of some requests that are in the queue leave it."""
        for request in list(requests):
            if request.request_id in self._slots:
                self.remove_request(request)

    @property
    def table(self) -> Table:
        """(NUM_COLUMNS, waiting) what is kept of whoever waits, in no particular order; a view, to be written to."""
        return self._all[:, : len(self._entries)]

    def set_keys(self, keys: Table, slopes: Table | float = 0.0) -> None:
        """Give every request another key.

        Args:
            keys: (waiting,) in the order of `table`.
            slopes: likewise.

        Raises:
            FloatingPointError: a key or a slope is no finite number; keys are as they were.
        """
        if not (np.isfinite(keys).all() and np.isfinite(slopes).all()):
            raise FloatingPointError("the queue key of a waiting request is no finite number")
        self.table[KEY], self.table[SLOPE] = keys, slopes
        self._head = None

    def replace_position(self, position: Callable[[int], float] | None) -> None:
        """Another x, or none, for keys that move."""
        self._position = position
        self._head = None

    def moved(self) -> None:
        """The clock has moved: the head may be another."""
        if self._position is not None:
            self._head = None

    def _put(self, entry: Seen) -> None:
        slot = len(self._entries)
        if slot == self._all.shape[1]:
            self._all = np.concatenate([self._all, np.zeros_like(self._all)], axis=1)
        self._all[:, slot] = self._describe(entry)
        self._entries.append(entry)
        self._slots[entry.request.request_id] = slot
        self.known_tokens += int(self._all[KNOWN, slot])
        self._head = None

    def _take(self, entry: Seen) -> None:
        slot = self._slots.pop(entry.request.request_id)
        self._write_back(slot)
        self.known_tokens -= int(self._all[KNOWN, slot])
        last = self._entries.pop()
        if last is not entry:
            self._all[:, slot] = self._all[:, len(self._entries)]
            self._entries[slot] = last
            self._slots[last.request.request_id] = slot
        self._head = None

    def _write_back(self, slot: int) -> None:
        """What has been set in the table, into the request's own state."""
        entry, column = self._entries[slot], self._all[:, slot]
        entry.key, entry.slope = float(column[KEY]), float(column[SLOPE])
        entry.prediction, entry.index = float(column[PREDICTION]), float(column[INDEX])

    def _first(self) -> Seen:
        if not self._entries:
            raise IndexError("the queue is empty")
        if self._head is None:
            keys = self._keys()
            slot = int(keys.argmin())
            ties = np.flatnonzero(keys == keys[slot])
            if len(ties) > 1:
                slot = int(ties[self.table[NUMBER, ties].argmin()])
            self._head = slot
            self._write_back(slot)
        return self._entries[self._head]

    def _keys(self) -> Table:
        table = self.table
        keys: Table = table[KEY]
        return keys if self._position is None else keys + table[SLOPE] * self._position(len(self._entries))

    @property
    def num_unstarted(self) -> int:
        """Those without a token yet."""
        return int(np.count_nonzero(self.table[GENERATED] == 0.0))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        order = np.lexsort((self.table[NUMBER], self._keys()))
        return iter([self._entries[slot].request for slot in order])

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(iter(self))[::-1])

    def __contains__(self, request: Any) -> bool:
        return request.request_id in self._slots
