"""JSON objects, one a request, as blocks: a fast path for clean objects, and an exact one that finds the fault.

The exact path defines what a field may hold; the fast path accepts a subset of that, with equal results.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.blocks import Block
from infermax_gym.workload.columns import WHOLE, Fault, shorten, signed
from infermax_gym.workload.formats import BAILIAN, Format

_MAX_TIME = 2**53  # whole numbers up to here are exact in float64
_UNITS = {1.0: "seconds", 1e3: "milliseconds"}


class RecordParser:
    """Parses the objects of one trace in order; the sessions of earlier ones are known to later ones.

    Attributes:
        trace: the format.
        wanted: labels that the selection asks for.
    """

    def __init__(self, trace: Format, wanted: Sequence[str] = ()) -> None:
        self.trace = trace
        self.wanted = wanted
        self._sessions: dict[int, int] = {}  # by chat

    def parse(self, lines: Sequence[int], texts: Sequence[str]) -> Block:
        """A block from texts of one object each, up to the first that is not right."""
        try:
            records = json.loads(f"[{','.join(texts)}]")  # one call for the block is faster than one a line
            if len(records) == len(texts):
                return self._block(lines, records)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError):
            pass
        objects: list[Any] = []
        for row, text in enumerate(texts):
            try:
                objects.append(_loaded(text.strip()))
            except ValueError as error:
                return self.block(lines, objects, Fault(row, str(error)))
        return self.block(lines, objects)

    def block(self, lines: Sequence[int], records: Sequence[Any], fault: Fault | None = None) -> Block:
        """A block from objects, up to the first that is not right; `fault` is what follows them."""
        good: list[dict[str, Any]] = []
        for row, record in enumerate(records):
            try:
                good.append(self._checked(record))
            except ValueError as error:
                fault = Fault(row, str(error))
                break
        block = self._block(lines, good)
        block.fault = fault
        return block

    def _arrival_name(self, record: dict[str, Any]) -> str:
        return next((name for name in self.trace.arrival if name in record), (*self.trace.arrival, "")[0])

    def _block(self, lines: Sequence[int], records: Sequence[dict[str, Any]]) -> Block:
        """A block from good records; raises when a value is missing or of another type than `_checked` allows."""
        trace = self.trace
        columns: dict[str, NDArray[Any]] = {
            "prompt": _whole([record[trace.prompt] for record in records]),
            "output": _whole([record[trace.output] for record in records]),
        }
        if trace.arrival:
            columns["arrival"] = self._arrivals([record[self._arrival_name(record)] for record in records])
        if trace is BAILIAN:
            chats = _whole([record["chat_id"] for record in records]).tolist()
            parents = _whole([record.get("parent_chat_id", -1) for record in records]).tolist()
            columns["turn"] = _whole([record.get("turn", 1) for record in records])
            if (columns["turn"] < 1).any():
                raise ValueError
            columns["session"] = np.array(list(map(self._session, chats, parents)), dtype=np.int64)
        labels = {name: self._labels(name, records) for name in self.wanted}
        if not trace.prefix_block_size:
            return Block(lines, columns, labels=labels)
        hashes = [record.get("hash_ids", []) for record in records]
        if not set(map(type, hashes)) <= {list}:
            raise TypeError
        num_blocks = np.array(list(map(len, hashes)), dtype=np.int64)
        return Block(lines, columns, num_blocks, _hashes(list(itertools.chain.from_iterable(hashes))), labels)

    def _arrivals(self, values: list[Any]) -> NDArray[Any]:
        if self.trace.arrival_kind is WHOLE:
            return _whole(values)
        if not set(map(type, values)) <= {int, float}:
            raise TypeError
        arrival = np.array(values, dtype=np.float64)
        if not (np.abs(arrival) <= _MAX_TIME).all():
            raise ValueError
        return arrival

    def _session(self, chat: int, parent: int) -> int:
        """A number that all chats have in common that follow from one another, also from one before the trace."""
        if parent < 0:
            return self._sessions.setdefault(chat, len(self._sessions))
        session = self._sessions.setdefault(parent, len(self._sessions))
        self._sessions[chat] = session
        return session

    def _labels(self, name: str, records: Sequence[dict[str, Any]]) -> list[str]:
        return [str(record.get(self.trace.labels[name], "")) for record in records]

    def _checked(self, record: Any) -> dict[str, Any]:
        """The record, or a ValueError that says what is wrong with it."""
        trace = self.trace
        if not isinstance(record, dict):
            raise ValueError(f"is {shorten(json.dumps(record))}; expected a JSON object")
        arrival = self._arrival_name(record)
        needed = ([arrival] if arrival else []) + [trace.prompt, trace.output] + ["chat_id"] * (trace is BAILIAN)
        for name in needed:
            if name not in record:
                raise ValueError(f"field {name} is missing")
        if arrival and trace.arrival_kind is not WHOLE:
            value = record[arrival]
            if type(value) not in (int, float) or not abs(value) <= _MAX_TIME:
                unit = _UNITS[trace.ticks_per_s]
                raise ValueError(f"{arrival} is {shorten(json.dumps(value))}; expected a number of {unit}")
            needed.remove(arrival)
        if trace is BAILIAN:
            needed += [name for name in ("parent_chat_id", "turn") if name in record]
        for name in needed:
            if not _is_whole(record[name], 2**63):
                raise ValueError(f"{name} is {shorten(json.dumps(record[name]))}; expected a whole number of 64 bits")
        if trace is BAILIAN and record.get("turn", 1) < 1:
            raise ValueError(f"turn is {record['turn']}; expected at least 1")
        hashes = record.get("hash_ids", []) if trace.prefix_block_size else []
        if type(hashes) is not list or not all(_is_whole(value, 2**64) for value in hashes):
            raise ValueError(f"hash_ids is {shorten(json.dumps(hashes))}; expected a list of whole numbers of 64 bits")
        return record


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; expected one object a line" if text in ("{", "}", "[", "]") else ""
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno}): {shorten(text)}{hint}") from None
    except RecursionError:
        raise ValueError(f"is nested too deeply: {shorten(text)}") from None


def _whole(values: list[Any]) -> NDArray[np.int64]:
    if not set(map(type, values)) <= {int}:
        raise TypeError
    return np.array(values, dtype=np.int64)


def _hashes(values: list[Any]) -> NDArray[np.int64]:
    if not set(map(type, values)) <= {int}:
        raise TypeError
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        if not all(_is_whole(value, 2**64) for value in values):
            raise
        return np.array(list(map(signed, values)), dtype=np.int64)


def _is_whole(value: object, limit: int) -> bool:
    return type(value) is int and -(2**63) <= value < limit
