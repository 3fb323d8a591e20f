"""Which rows of a trace become requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.blocks import Block
from infermax_gym.workload.formats import Format
from infermax_gym.workload.workload import WorkloadError


@dataclass(frozen=True)
class Selection:
    """Rows by number, time and label. `skip` and `first` count what the other choices leave.

    Attributes:
        skip: requests to leave out at the beginning.
        first: how many to keep at most; None for all.
        from_s: seconds after the first request served of the file from which on to keep requests.
        to_s: where to stop, in the same seconds; a request at exactly that time is left out.
        model: keep rows with this name in the trace's column of models, upper or lower case.
        log_type: the same for the kind of log or request.

    Raises:
        WorkloadError: a number is out of range.
    """

    skip: int = 0
    first: int | None = None
    from_s: float | None = None
    to_s: float | None = None
    model: str | None = None
    log_type: str | None = None

    def __post_init__(self) -> None:
        if self.skip < 0:
            raise WorkloadError(f"skip must not be negative, got {self.skip}")
        if self.first is not None and self.first < 1:
            raise WorkloadError(f"first must be at least 1, got {self.first}")
        for name, value in (("from_s", self.from_s), ("to_s", self.to_s)):
            if value is not None and not 0.0 <= value < math.inf:
                raise WorkloadError(f"{name} must be a time of at least 0 s, got {value}")
        if self.to_s is not None and self.to_s <= (self.from_s or 0.0):
            raise WorkloadError(f"to_s ({self.to_s}) must be later than from_s ({self.from_s or 0.0})")

    @property
    def labels(self) -> dict[str, str]:
        """What is asked for by label."""
        asked = {"model": self.model, "log_type": self.log_type}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def files_only(self) -> list[str]:
        """Names of the choices in use that only a trace file can answer."""
        times = {"from_s": self.from_s, "to_s": self.to_s}
        return [name for name, value in times.items() if value is not None] + list(self.labels)

    def check(self, trace: Format, path: object) -> None:
        """Refuse choices that a format cannot answer."""
        for name in self.labels:
            if name not in trace.labels:
                raise WorkloadError(f"{path}: {trace.title} has no column by which {name} could choose, or not here")
        if (self.from_s is not None or self.to_s is not None) and not trace.arrival:
            raise WorkloadError(f"{path}: holds no arrival times, so from_s and to_s do not apply")


@dataclass
class Requests:
    """The rows kept so far: those that were served and are asked for, from number `skip` on."""

    path: object
    selection: Selection
    trace: Format
    blocks: list[Block] = field(default_factory=list)
    num_dropped: int = 0
    num_seen: int = 0
    num_served: int = 0
    start: Any = None
    names_seen: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, block: Block) -> bool:
        """Keep what is wanted of a block; True once nothing after it is."""
        columns, selection = block.columns, self.selection
        served = np.ones(len(block), np.bool_)
        if self.trace.drops_empty:
            served = (columns["prompt"] > 0) & (columns["output"] > 0)
        self.num_served += int(served.sum())
        wanted, is_over = self._wanted(block, served)
        keep = served & wanted
        stop = math.inf if selection.first is None else selection.skip + selection.first
        number = self.num_seen + np.cumsum(keep) - 1  # of each row among those kept
        between = (number >= selection.skip - 1) & (number < stop - 1)
        self.num_dropped += int((between & wanted & ~served).sum())
        self.num_seen += int(keep.sum())
        if self.num_seen > selection.skip:
            self.blocks.append(block.take(keep & (number >= selection.skip) & (number < stop)))
        return self.num_seen >= stop or is_over

    def _wanted(self, block: Block, served: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], bool]:
        """(n,) what time and labels ask for, and whether all later rows are too late."""
        wanted, is_over, selection = np.ones(len(block), np.bool_), False, self.selection
        for name, asked in selection.labels.items():
            texts = [text.strip() for text in block.labels[name]]
            self.names_seen.setdefault(name, {}).update(dict.fromkeys(texts))
            wanted &= np.array([text.casefold() == asked.strip().casefold() for text in texts], np.bool_)
        if selection.from_s is None and selection.to_s is None:
            return wanted, False
        arrival = block.columns["arrival"]
        if self.start is None and served.any():
            self.start = arrival[served][0]
        if self.start is None:
            return wanted, False
        after_s = (arrival - self.start) / self.trace.ticks_per_s
        if selection.from_s is not None:
            wanted &= after_s >= selection.from_s
        if selection.to_s is not None:
            wanted &= after_s < selection.to_s
            is_over = bool(len(after_s) and after_s[-1] >= selection.to_s)
        return wanted, is_over

    def columns(self) -> dict[str, NDArray[Any]]:
        """All kept rows; raises if there are none."""
        if not self.blocks:
            raise WorkloadError(f"{self.path}: {self._why_none()}")
        names = self.blocks[0].columns
        return {name: np.concatenate([block.columns[name] for block in self.blocks]) for name in names}

    def _why_none(self) -> str:
        selection = self.selection
        for name, asked in selection.labels.items():
            seen: Mapping[str, None] = self.names_seen.get(name, {})
            if seen and asked.strip().casefold() not in {text.casefold() for text in seen}:
                return f"no request has {name} {asked!r}; there are {', '.join(sorted(seen))}"
        if self.num_seen:
            source = "the selection" if selection.files_only else "the file"
            return f"skip={selection.skip} leaves no request; {source} has {self.num_seen}"
        if self.num_served:
            return f"no request fits the selection ({', '.join(selection.files_only)})"
        if self.num_dropped:
            return f"holds no request that was served; all {self.num_dropped} rows have a count of 0"
        return "holds a header but no requests"
