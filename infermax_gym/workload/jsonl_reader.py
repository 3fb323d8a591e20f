"""JSONL traces, one object a request and line, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK, Block
from infermax_gym.workload.formats import Format
from infermax_gym.workload.records import RecordParser

_NUM_LINES = NUM_ROWS_PER_BLOCK // 8  # a line holds a list of hashes, so a block of them is larger


class JsonlReader:
    """A trace of one JSON object a line.

    Attributes:
        trace: the format.
        names: empty; these formats have no columns of names.
        prefix_block_size: tokens per prefix block; 0 without prefixes.
    """

    def __init__(self, text: Iterable[str], trace: Format, path: object, wanted: Sequence[str] = ()) -> None:
        """Take the lines of a file (with their ends), the format of the first, and the labels that are wanted."""
        self.trace = trace
        self.names: dict[str, dict[str, int]] = {}
        self.prefix_block_size = trace.prefix_block_size
        self._parser = RecordParser(trace, wanted)
        self._text = iter(text)
        self._line = 0
        self._path = path

    def place(self, line: int) -> str:
        """Where a row is, for an error."""
        return f"{self._path}:{line}"

    def blocks(self) -> Iterator[Block]:
        """The rows, a few thousand at a time; blank lines are skipped."""
        while texts := list(itertools.islice(self._text, _NUM_LINES)):
            numbered = [(self._line + i, line) for i, line in enumerate(texts, 1) if line.strip()]
            self._line += len(texts)
            if numbered:
                block = self._parser.parse([line for line, _ in numbered], [text for _, text in numbered])
                yield block
                if block.fault is not None:
                    return
