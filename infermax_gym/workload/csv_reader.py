"""CSV traces, block by block."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK, Block
from infermax_gym.workload.columns import HASH, WHOLE, Fault, Kind
from infermax_gym.workload.formats import OWN, Format, detect_csv
from infermax_gym.workload.workload import WorkloadError

PREFIX_COLUMN = "prefix_blocks_"
"""Column of prefix block hashes in the project's own CSV, followed by the tokens per block."""

_QUOTE = "a quoted cell does not end on its line"


class CsvReader:
    """A CSV trace: its format, from the header, and its rows.

    Attributes:
        trace: the format.
        names: for each column of names, the index of each name met so far.
        prefix_block_size: tokens per prefix block; 0 without prefixes.
    """

    def __init__(self, text: Iterable[str], path: object, wanted: Sequence[str] = ()) -> None:
        """Read the header.

        Args:
            text: lines of the file, with their ends.
            path: of the file, for errors.
            wanted: labels that the selection asks for.

        Raises:
            WorkloadError: the file has no line, or its header belongs to no format.
        """
        self._rows = csv.reader(text, strict=True)
        try:
            header = next((row for row in self._rows if any(cell.strip() for cell in row)), None)
        except csv.Error as error:
            raise WorkloadError(f"{path}:1: {error}; expected a header") from None
        if header is None:
            raise WorkloadError(f"{path}: the file is empty")
        self._header = [cell.strip().lower() for cell in header]
        self.trace: Format = detect_csv(self._header, f"{path}:{self._rows.line_num}")
        self.names: dict[str, dict[str, int]] = {name: {} for name in self.trace.names if name in self._header}
        prefixes = [name for name in self._header if re.fullmatch(PREFIX_COLUMN + "[1-9][0-9]{0,8}", name)]
        self._prefix = prefixes[0] if prefixes and self.trace is OWN else ""
        self.prefix_block_size = int(self._prefix.removeprefix(PREFIX_COLUMN) or 0)
        self._wanted = wanted
        for name in wanted:
            if self.trace.labels.get(name, "").lower() not in self._header:
                raise WorkloadError(
                    f"{path}: {self.trace.title} has no column by which {name} could choose, or not here"
                )
        self._path = path

    def place(self, line: int) -> str:
        """Where a row is, for an error."""
        return f"{self._path}:{line}"

    def blocks(self) -> Iterator[Block]:
        """The rows, at most `NUM_ROWS_PER_BLOCK` at a time; blank lines are skipped."""
        while True:
            rows, lines, fault = self._next_rows()
            if not lines:
                return
            yield self._parse(rows, lines, fault)
            if fault is not None:
                return

    def _next_rows(self) -> tuple[list[list[str]], list[int], Fault | None]:
        """Rows with as many cells as the header has, their lines, and what stopped them short of a full block."""
        rows: list[list[str]] = []
        lines: list[int] = []
        num_cells, reader = len(self._header), self._rows
        line = reader.line_num
        try:
            for row in reader:
                if reader.line_num != line + 1:
                    return rows, [*lines, line + 1], Fault(len(rows), _QUOTE)
                line += 1
                if len(row) != num_cells:
                    if not any(cell.strip() for cell in row):
                        continue
                    message = f"has {len(row)} cells; the header has {num_cells}"
                    return rows, [*lines, line], Fault(len(rows), message)
                rows.append(row)
                lines.append(line)
                if len(rows) == NUM_ROWS_PER_BLOCK:
                    break
        except csv.Error as error:
            message = _QUOTE if "end of data" in str(error) else f"is not CSV ({error})"
            return rows, [*lines, line + 1], Fault(len(rows), message)
        return rows, lines, None

    def _parse(self, rows: list[list[str]], lines: list[int], fault: Fault | None) -> Block:
        cells = dict(zip(self._header, zip(*rows, strict=True), strict=True)) if rows else {}
        columns: dict[str, NDArray[np.int64 | np.float64]] = {}
        faults = [fault] if fault is not None else []
        for name, column, kind in self._numeric():
            columns[name], found = kind.parse(cells.get(column.lower(), ()))
            if found is not None:
                faults.append(Fault(found.row, f"{column} {found.message}"))
        for name in self.names:
            columns[name] = self._codes(name, cells.get(name, ()))
        labels = {name: cells.get(self.trace.labels[name].lower(), ()) for name in self._wanted}
        block = Block(lines, columns, labels=labels)
        if self._prefix:
            block.num_blocks, block.prefix_blocks, found = _parse_hashes(cells.get(self._prefix, ()))
            if found is not None:
                faults.append(Fault(found.row, f"{self._prefix} {found.message}"))
        if faults:
            block.fault = min(faults)
            return block.head(block.fault.row)
        return block

    def _numeric(self) -> Iterator[tuple[str, str, Kind]]:
        """Name in the block, column as the format spells it, and kind of cell, of each numeric column present."""
        yield "prompt", self.trace.prompt, WHOLE
        yield "output", self.trace.output, WHOLE
        for name in self.trace.arrival:
            if name.lower() in self._header:
                yield "arrival", name, self.trace.arrival_kind
                break
        for name, kind in self.trace.optional.items():
            if name in self._header:
                yield name, name, kind

    def _codes(self, name: str, cells: Sequence[str]) -> NDArray[np.int64]:
        index = self.names[name]
        stripped = [cell.strip() or "default" for cell in cells]
        for cell in dict.fromkeys(stripped):
            index.setdefault(cell, len(index))
        return np.array([index[cell] for cell in stripped], dtype=np.int64)


def _parse_hashes(cells: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], Fault | None]:
    """Cells of hashes between spaces: how many each row has, all of them, and the first fault."""
    words = [cell.split() for cell in cells]
    num_blocks = np.array(list(map(len, words)), dtype=np.int64)
    hashes, fault = HASH.parse([word for row in words for word in row])
    if fault is not None:
        row = int(np.searchsorted(np.cumsum(num_blocks), fault.row, side="right"))
        fault = Fault(row, fault.message)
    return num_blocks, hashes, fault
