"""`Block`: a few thousand rows of a trace as arrays, with the checks that every format shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.columns import Fault
from infermax_gym.workload.formats import HASHED_FORMATS, Format

NUM_ROWS_PER_BLOCK = 32_768
"""Rows parsed at a time: enough to amortise the work per block, few enough to bound memory."""

MAX_TOKENS = 1_000_000_000
"""Largest token count accepted; squares of it still fit the engine's 64-bit sums."""


@dataclass
class Block:
    """Rows of a trace.

    Attributes:
        lines: line number of each row, from 1, the row at fault included.
        columns: arrays of shape (n,) by name: `arrival` (in the format's own units; absent if the format has
            none), `prompt`, `output`, and the names of further `Workload` fields.
        num_blocks: (n,) int64 prefix blocks of each row; empty if the format has none.
        prefix_blocks: (sum(num_blocks),) int64 hashes.
        labels: n names by what the selection calls them (`model`, `log_type`), as far as it asks for them.
        fault: what is wrong with the first row that could not be parsed; that row and all later ones are not in
            the arrays.
    """

    lines: Sequence[int]
    columns: dict[str, NDArray[Any]]
    num_blocks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    prefix_blocks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fault: Fault | None = None

    def __len__(self) -> int:
        return len(self.columns["prompt"])

    def head(self, num_rows: int) -> Block:
        """The first rows, with the line numbers of all."""
        columns = {name: values[:num_rows] for name, values in self.columns.items()}
        num_blocks = self.num_blocks[:num_rows]
        labels = {name: texts[:num_rows] for name, texts in self.labels.items()}
        return Block(self.lines, columns, num_blocks, self.prefix_blocks[: num_blocks.sum()], labels, self.fault)

    def take(self, rows: NDArray[np.bool_]) -> Block:
        """The rows of a (n,) mask, without their line numbers and labels."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        if not len(self.num_blocks):
            return Block((), columns)
        hashes = self.prefix_blocks[np.repeat(rows, self.num_blocks)]
        return Block((), columns, self.num_blocks[rows], hashes)


def first_fault(block: Block, trace: Format, previous_arrival: Any) -> Fault | None:
    """The first row that could not be parsed, is out of range or order, or has hashes of other blocks than its prompt.

    Args:
        block: rows as parsed.
        trace: their format.
        previous_arrival: arrival of the last row before the block, in the format's units (an integer where the format
            counts in integers, so that the comparison is exact); None for none.
    """
    faults = [block.fault, _count_fault(block, trace, "prompt"), _count_fault(block, trace, "output")]
    if trace.prefix_block_size:
        faults.append(_hash_fault(block, trace))
    if "arrival" in block.columns:
        faults.append(_arrival_fault(block, trace, previous_arrival))
    return min((fault for fault in faults if fault is not None), default=None)


def _count_fault(block: Block, trace: Format, name: str) -> Fault | None:
    counts = block.columns[name]
    lowest = 0 if trace.drops_empty else 1
    bad = np.flatnonzero((counts < lowest) | (counts > MAX_TOKENS))
    if not bad.size:
        return None
    row, count = int(bad[0]), int(counts[bad[0]])
    limit = f"at least {lowest}" if count < lowest else f"at most {MAX_TOKENS}"
    return Fault(row, f"{getattr(trace, name)} is {count}; expected {limit}")


def _hash_fault(block: Block, trace: Format) -> Fault | None:
    """A row whose hashes are neither none, nor those of all whole blocks of its prompt, nor one more for the rest."""
    prompt, count = block.columns["prompt"], block.num_blocks
    whole, rest = np.divmod(prompt, trace.prefix_block_size)
    bad = np.flatnonzero((count > 0) & (prompt > 0) & (count != whole) & (count != whole + (rest > 0)))
    if not bad.size:
        return None
    row = int(bad[0])
    hint = ""
    for other in (item for item in HASHED_FORMATS if item is not trace):
        if count[row] in (prompt[row] // other.prefix_block_size, -(-prompt[row] // other.prefix_block_size)):
            hint = f"; as many as blocks of {other.prefix_block_size}, see {other.title}: {other.told_by}"
    return Fault(
        row,
        f"has {count[row]} hash_ids for {prompt[row]} prompt tokens; expected {whole[row] + (rest[row] > 0)}, one a "
        f"block of {trace.prefix_block_size}{hint}",
    )


def _arrival_fault(block: Block, trace: Format, previous: Any) -> Fault | None:
    arrival = block.columns["arrival"]
    before = np.empty_like(arrival)  # not joined: integers and a float would be compared as floats
    before[:1] = arrival[:1] if previous is None else previous
    before[1:] = arrival[:-1]
    bad = np.flatnonzero((arrival < 0) | (arrival < before))
    if not bad.size:
        return None
    row = int(bad[0])
    if arrival[row] < 0:
        return Fault(row, f"arrives at {arrival[row]}; expected a time that is not negative")
    late_s = (before[row] - arrival[row]) / trace.ticks_per_s
    return Fault(row, f"arrives {late_s:.6g} s before the row above; expected rows in order of arrival")
