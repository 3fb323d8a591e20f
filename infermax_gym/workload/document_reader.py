"""Traces that are one JSON document: a list of objects, or the result of `vllm bench serve` with a list per figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.blocks import NUM_ROWS_PER_BLOCK, Block
from infermax_gym.workload.formats import VLLM, Format, detect_json, unknown_format
from infermax_gym.workload.records import RecordParser
from infermax_gym.workload.source import whole
from infermax_gym.workload.workload import WorkloadError

_VLLM_TOTALS = ("total_input_tokens", "request_throughput")


class DocumentReader:
    """A JSON document: its format, and its rows.

    Attributes:
        trace: the format.
        names: empty; these formats have no columns of names.
        prefix_block_size: tokens per prefix block; 0 without prefixes.
    """

    def __init__(self, text: Iterable[str], path: object, wanted: Sequence[str] = ()) -> None:
        """Read the whole document.

        Raises:
            WorkloadError: it is not one JSON document, or of no known format.
        """
        self.names: dict[str, dict[str, int]] = {}
        self._path = path
        document = _document(whole(text, path), path)
        self._records: list[Any] = []
        self._lists: Mapping[str, Any] = {}
        if is_vllm(document):
            self.trace: Format = VLLM
            self._lists = _per_request(document, path)
            if VLLM.arrival[0] not in document:
                self.trace = Format(VLLM.name, VLLM.title, VLLM.prompt, VLLM.output, drops_empty=True)
        elif isinstance(document, dict):
            raise unknown_format(f"{path}", json.dumps(document))
        else:
            if not document:
                raise WorkloadError(f"{path}: holds an empty list; expected a list of objects, one a request")
            self._records = document
            if not isinstance(document[0], dict):
                raise unknown_format(self.place(1), json.dumps(document[0]))
            self.trace = detect_json(document[0], self.place(1))
        self.prefix_block_size = self.trace.prefix_block_size
        self._parser = RecordParser(self.trace, wanted)

    def place(self, line: int) -> str:
        """Where a request is, for an error."""
        return f"{self._path}: object {line}" if self._records else f"{self._path}: request {line}"

    def blocks(self) -> Iterator[Block]:
        """The rows, `NUM_ROWS_PER_BLOCK` at a time."""
        if self._lists:
            yield self._by_start()
            return
        for first in range(0, len(self._records), NUM_ROWS_PER_BLOCK):
            records = self._records[first : first + NUM_ROWS_PER_BLOCK]
            block = self._parser.block(range(first + 1, first + 1 + len(records)), records)
            yield block
            if block.fault is not None:
                return

    def _by_start(self) -> Block:
        """Requests in order of their start; the file has them in the order of the prompts."""
        columns: dict[str, NDArray[Any]] = {
            "prompt": np.array(self._lists[VLLM.prompt], dtype=np.int64),
            "output": np.array(self._lists[VLLM.output], dtype=np.int64),
        }
        order = np.arange(len(columns["prompt"]))
        if self.trace is VLLM:
            columns["arrival"] = np.array(self._lists[VLLM.arrival[0]], dtype=np.float64)
            order = np.argsort(columns["arrival"], kind="stable")
        return Block((order + 1).tolist(), {name: values[order] for name, values in columns.items()})


def is_vllm(document: object) -> bool:
    """Whether this is a result of `vllm bench serve`, complete or not."""
    if not isinstance(document, dict):
        return False
    return type(document.get(VLLM.prompt)) is list or all(name in document for name in _VLLM_TOTALS)


def _document(text: str, path: object) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise WorkloadError(
                f"{path}:{error.lineno}: a second JSON object begins after one over several lines; expected one object "
                "a line (`jq -c .` writes it so), or one list of objects"
            ) from None
        what = f"is not JSON ({error.msg} at column {error.colno})"
        raise WorkloadError(f"{path}:{error.lineno}: {what}; expected one JSON document") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise WorkloadError(f"{path}: is not JSON that can be read ({error})") from None
    except RecursionError:
        raise WorkloadError(f"{path}: is nested too deeply; expected a list of objects") from None


def _per_request(document: Mapping[str, Any], path: object) -> Mapping[str, Any]:
    """The lists, checked."""
    prompts, outputs = document.get(VLLM.prompt), document.get(VLLM.output)
    if type(prompts) is not list or type(outputs) is not list:
        raise WorkloadError(
            f"{path}: is a result of vllm bench serve without its lists {VLLM.prompt} and {VLLM.output}; "
            "run it with --save-result --save-detailed"
        )
    starts = document.get(VLLM.arrival[0], [0.0] * len(prompts))
    for name, values, kinds, what in (
        (VLLM.prompt, prompts, (int,), "whole numbers"),
        (VLLM.output, outputs, (int,), "whole numbers"),
        (VLLM.arrival[0], starts, (int, float), "seconds"),
    ):
        if type(values) is not list or len(values) != len(prompts):
            raise WorkloadError(f"{path}: {name} is not a list as long as {VLLM.prompt}, which has {len(prompts)}")
        for number, value in enumerate(values, 1):
            if type(value) not in kinds or not abs(value) <= 2**53:
                raise WorkloadError(f"{path}: request {number}: {name} is {json.dumps(value)}; expected {what}")
    if not prompts:
        raise WorkloadError(f"{path}: {VLLM.prompt} is empty; expected one number a request")
    return document
