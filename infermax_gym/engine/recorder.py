"""What an engine has written down as it ran, and the result that is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.result import Iteration, SimulationResult, statuses
from infermax_gym.engine.state import Engine
from infermax_gym.workload.workload import Workload

# So many small parts become a large one, whose memory goes back to the system when it is freed.
_MANY = 128
_LARGE = 1 << 20


@dataclass
class Recorder:
    """Collects what an engine's log holds each time it is emptied."""

    gaps: list[NDArray[np.float64]] = field(default_factory=list)
    gap_counts: list[NDArray[np.int32]] = field(default_factory=list)
    schedule: list[Iteration] = field(default_factory=list)

    def copy(self) -> Recorder:
        """A recorder of the same contents, for whoever takes them out."""
        return Recorder(list(self.gaps), list(self.gap_counts), list(self.schedule))

    def empty(self, engine: Engine) -> None:
        """Take everything out of the engine's log."""
        core, arrays = engine.record, engine.arrays
        count = int(core["num_gaps"][0])
        self.gaps.append(arrays["gaps"][:count].copy())
        self.gap_counts.append(arrays["gap_counts"][:count].astype(np.int32))
        if len(self.gaps) >= _MANY and len(self.gaps[-_MANY]) < _LARGE:
            self.gaps[-_MANY:] = [np.concatenate(self.gaps[-_MANY:])]
            self.gap_counts[-_MANY:] = [np.concatenate(self.gap_counts[-_MANY:])]
        num_spans = int(core["num_spans"][0])
        places, tokens = arrays["members"][: int(core["num_members"][0])].T
        members = list(zip(_numbers_of(engine, places), tokens.tolist(), strict=True))
        victims = _numbers_of(engine, arrays["victims"][: int(core["num_victims"][0])])
        first_member = first_victim = 0
        ends = arrays["ends"][:num_spans].tolist()
        for (start_s, end_s), (last_member, last_victim) in zip(
            arrays["spans"][:num_spans].tolist(), ends, strict=True
        ):
            batch = tuple(members[first_member:last_member])
            self.schedule.append(Iteration(start_s, end_s, batch, tuple(victims[first_victim:last_victim])))
            first_member, first_victim = last_member, last_victim
        for name in ("num_gaps", "num_spans", "num_members", "num_victims"):
            core[name] = 0


def _numbers_of(engine: Engine, places: NDArray[np.int64]) -> list[int]:
    """The requests in these places, by their numbers in the workload."""
    numbers = engine.requests["number"][places] if engine.record["takes_from_loop"][0] else places
    return list(map(int, numbers.tolist()))


def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """All parts one after another. The list is emptied on the way, so that memory does not hold them twice."""
    whole = np.empty(sum(map(len, parts)), parts[0].dtype)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def result_of(engine: Engine, workload: Workload, recorder: Recorder, with_schedule: bool) -> SimulationResult:
    """The result of an engine that has run, its log already emptied into `recorder`."""
    disband(engine.core)
    core, req, arrival_s = engine.record[0], engine.requests, workload.arrival_s
    cached = engine.arrays["holds"]["cached"]
    if core["takes_from_loop"]:
        places = engine.places_of(np.arange(len(workload)))
        arrival_s = np.where(places >= 0, req["arrival_s"][places], np.nan)
        req = np.where(places >= 0, req[places], engine.requests_to_come)
        cached = np.where(places >= 0, cached[places], 0) if len(cached) else cached
    finish_s = req["finish_s"].copy()
    makespan_s = float(np.nanmax(finish_s)) if core["num_finished"] else 0.0
    capacity = makespan_s * float(core["num_blocks"])
    return SimulationResult(
        workload=workload,
        first_scheduled_s=req["first_scheduled_s"].copy(),
        first_token_s=req["first_token_s"].copy(),
        finish_s=finish_s,
        num_preemptions_of=req["preemptions"].copy(),
        num_recomputed_tokens_of=req["recomputed"].copy(),
        num_generated_tokens=req["generated"].copy(),
        status=statuses(req),
        gap_s=joined(recorder.gaps),
        gap_counts=joined(recorder.gap_counts),
        makespan_s=makespan_s,
        busy_s=float(core["busy_s"]),
        num_iterations=int(core["num_iterations"]),
        num_decisions=int(core["num_decisions"]),
        num_preemptions=int(core["num_preemptions"]),
        num_recomputed_tokens=int(core["num_recomputed"]),
        num_guarded_iterations=int(core["num_guarded"]),
        kv_utilization=float(core["kv_block_seconds"]) / capacity if capacity > 0.0 else 0.0,
        schedule=tuple(recorder.schedule) if with_schedule else None,
        num_cached_tokens_of=cached.copy(),
        arrival_s=arrival_s,
    )
