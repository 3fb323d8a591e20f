"""`load_workload`: the one entry point for a preset's name or a trace's path."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

from infermax_gym.workload.presets import PRESETS, UNIFORM, WorkloadPreset, make_workload, uniform_preset
from infermax_gym.workload.reader import check_timing, read_workload, retimed
from infermax_gym.workload.selection import Selection
from infermax_gym.workload.workload import Workload, WorkloadError

NUM_REQUESTS = 1_000
"""Requests that a preset makes unless told otherwise."""


def load_workload(
    name_or_path: str | Path | WorkloadPreset,
    *,
    num_requests: int = NUM_REQUESTS,
    skip: int = 0,
    first: int | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    model: str | None = None,
    log_type: str | None = None,
    time_scale: float = 1.0,
    rate: float | None = None,
    seed: int = 0,
    content: bytes | None = None,
) -> Workload:
    """Requests from a preset or from a trace file.

    Args:
        name_or_path: a preset, its key in `PRESETS` or `uniform:I,O,R` (`presets.uniform_preset`), else the path of a
            trace (see `read_workload`).
        num_requests: how many requests a preset makes after the skipped ones, unless `first` says; files ignore it.
        skip: requests to leave out at the beginning.
        first: how many requests to keep at most.
        from_s: of a trace file, where to begin, in seconds; see `read_workload`.
        to_s: of a trace file, where to stop.
        model: of a trace file, the model asked.
        log_type: of a trace file, the kind of log.
        time_scale: factor on the arrival times; below 1 raises the load.
        rate: stretch the arrivals of the requests kept to this mean rate, in requests per second.
        seed: of everything random.
        content: of the file, where it can be read only once (`workload.source.kept_content`).

    Raises:
        WorkloadError: neither a preset nor a usable trace, or an option is out of range; one line.
    """
    preset = _preset(name_or_path)
    if preset is None:
        assert not isinstance(name_or_path, WorkloadPreset)
        name = os.fspath(name_or_path)
        if isinstance(name_or_path, str) and not _looks_like_path(name):
            raise WorkloadError(_unknown(name))
        return read_workload(
            name_or_path,
            skip=skip,
            first=first,
            from_s=from_s,
            to_s=to_s,
            model=model,
            log_type=log_type,
            time_scale=time_scale,
            rate=rate,
            seed=seed,
            content=content,
        )
    selection = Selection(skip, first, from_s, to_s, model, log_type)
    if selection.files_only:
        raise WorkloadError(f"{selection.files_only[0]} chooses requests of a trace file; {preset.name} is a preset")
    check_timing(time_scale, rate)
    count = num_requests if first is None else first
    if count < 1:
        raise WorkloadError(f"num_requests must be at least 1, got {count}")
    workload = make_workload(preset, skip + count, seed=seed).trace_slice(skip, count)
    chosen = {"skip": skip, "first": first, "time_scale": time_scale, "rate": rate}
    return retimed(replace(workload, metadata={**workload.metadata, **chosen}), time_scale, rate)


def _preset(name_or_path: str | Path | WorkloadPreset) -> WorkloadPreset | None:
    if isinstance(name_or_path, WorkloadPreset):
        return name_or_path
    name = os.fspath(name_or_path)
    return uniform_preset(name) if name.startswith(UNIFORM) else PRESETS.get(name)


def _looks_like_path(name: str) -> bool:
    return os.sep in name or bool(Path(name).suffix) or os.path.exists(name)


def _unknown(name: str) -> str:
    name_lower = name.lower()
    close = [preset for preset in PRESETS if name and (preset.startswith(name_lower) or name_lower.startswith(preset))]
    close = close or difflib.get_close_matches(name_lower, PRESETS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"no workload is called {name!r}; {hint}Presets are {', '.join(PRESETS)}; anything else must be a trace file"
