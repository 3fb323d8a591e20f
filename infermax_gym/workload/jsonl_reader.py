"""Mooncake JSONL traces, block by block."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK, Block
from infermax_gym.workload.columns import Fault, shorten
from infermax_gym.workload.formats import MOONCAKE, MOONCAKE_BLOCK_SIZE, Format, unknown_format

_FIELDS = (MOONCAKE.arrival[0], MOONCAKE.prompt, MOONCAKE.output, "hash_ids")
_MAX_MS = 2**53  # whole milliseconds up to here are exact in float64
_NUM_LINES = NUM_ROWS_PER_BLOCK // 8  # a line holds a list of hashes, so a block of them is larger


class JsonlReader:
    """A Mooncake trace: one JSON object a line, with the prefix blocks of its prompt.

    Attributes:
        trace: the format.
        names: empty; this format has no columns of names.
        prefix_block_size: tokens per prefix block.
    """

    def __init__(self, text: Iterable[str], first: str, where: str) -> None:
        """Look at the first line, which must be an object with Mooncake's fields.

        Args:
            text: lines of the file, with their ends.
            first: the first line that is not blank.
            where: file and line of `first`, for the error.

        Raises:
            WorkloadError: the first line is an object of another format.
        """
        self.trace: Format = MOONCAKE
        self.names: dict[str, dict[str, int]] = {}
        self.prefix_block_size = MOONCAKE_BLOCK_SIZE
        self._text = iter(text)
        self._line = 0
        try:
            record = json.loads(first)
        except (ValueError, RecursionError):
            return  # reported with its line when the block is parsed
        # Alibaba's traces share these fields but count seconds and hash blocks of 16 tokens.
        if sum(name in record for name in _FIELDS[:3]) < 2 or "chat_id" in record:
            raise unknown_format(where, first.strip())

    def blocks(self) -> Iterator[Block]:
        """The rows, a few thousand at a time; blank lines are skipped."""
        while texts := list(itertools.islice(self._text, _NUM_LINES)):
            numbered = [(self._line + i, line) for i, line in enumerate(texts, 1) if line.strip()]
            self._line += len(texts)
            if numbered:
                block = _parse([line for line, _ in numbered], [text for _, text in numbered])
                yield block
                if block.fault is not None:
                    return


def _parse(lines: list[int], texts: list[str]) -> Block:
    try:
        records = json.loads(f"[{','.join(texts)}]")  # one call for the block is faster than one a line
        if len(records) == len(texts):
            return _fast_block(lines, records)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass
    records, fault = [], None
    for row, text in enumerate(texts):
        try:
            records.append(_exact_record(text))
        except ValueError as error:
            fault = Fault(row, str(error))
            break
    block = _fast_block(lines, records)
    block.fault = fault
    return block


def _fast_block(lines: list[int], records: list[dict[str, Any]]) -> Block:
    """A block from records; raises when a value is missing or of another type than `_exact_record` allows."""
    columns = []
    for name in _FIELDS[:3]:
        values = [record[name] for record in records]
        if not set(map(type, values)) <= ({int, float} if name == MOONCAKE.arrival[0] else {int}):
            raise TypeError
        columns.append(values)
    hashes = [record.get("hash_ids", []) for record in records]
    if not set(map(type, hashes)) <= {list}:
        raise TypeError
    flat = list(itertools.chain.from_iterable(hashes))
    if not set(map(type, flat)) <= {int}:
        raise TypeError
    arrival = np.array(columns[0], dtype=np.float64)
    if not (np.abs(arrival) <= _MAX_MS).all():
        raise ValueError
    return Block(
        lines,
        {
            "arrival": arrival,
            "prompt": np.array(columns[1], dtype=np.int64),
            "output": np.array(columns[2], dtype=np.int64),
        },
        np.array(list(map(len, hashes)), dtype=np.int64),
        np.array(flat, dtype=np.int64),
    )


def _exact_record(text: str) -> dict[str, Any]:
    """One record, or a ValueError that says what is wrong with it."""
    text = text.strip()
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno}): {shorten(text)}") from None
    except RecursionError:
        raise ValueError(f"is nested too deeply: {shorten(text)}") from None
    if not isinstance(record, dict):
        raise ValueError(f"is {shorten(text)}; expected a JSON object")
    for name in _FIELDS[:3]:
        if name not in record:
            raise ValueError(f"field {name} is missing")
    arrival = record[_FIELDS[0]]
    if type(arrival) not in (int, float) or not abs(arrival) <= _MAX_MS:
        raise ValueError(f"{_FIELDS[0]} is {shorten(json.dumps(arrival))}; expected a number of milliseconds")
    for name in _FIELDS[1:3]:
        if not _is_int64(record[name]):
            raise ValueError(f"{name} is {shorten(json.dumps(record[name]))}; expected a whole number of 64 bits")
    hashes = record.get("hash_ids", [])
    if type(hashes) is not list or not all(map(_is_int64, hashes)):
        raise ValueError(f"hash_ids is {shorten(json.dumps(hashes))}; expected a list of whole numbers of 64 bits")
    return record


def _is_int64(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63
