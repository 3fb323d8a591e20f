"""What a picture of a run needs: how its times are distributed, and what the engine held over time.

`infermax bench --out` writes it to details.json; `infermax report` draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.engine import STATUS_NAMES, EngineConfig, Policy, Session, SimulationResult
from infermax_gym.engine.kernel.group import disband
from infermax_gym.evaluation.contenders import Contender, Served
from infermax_gym.evaluation.fleets import FleetContender
from infermax_gym.evaluation.replay import occupancy
from infermax_gym.workload import Workload
from infermax_gym.workload.request_log import RequestLog

SCHEMA = 1
NUM_MOMENTS = 300
_LOOKS = 5  # between two moments, which pictures show the mean of
SHARES = 1.0 - np.logspace(0.0, -3.0, 121)
"""Shares of the requests at which distributions are kept: from none to 99.9 %, evenly spaced in decades of the rest."""

MOST_RECORDED_TOKENS = 1_000_000
"""Outputs of a workload, in all, up to which a schedule is recorded to draw it: some 100 MB."""

_TIMES = ("latency_s", "ttft_s", "tpot_s")

Details = dict[str, Any]
Observe = Callable[[str, Contender, Workload, Served], None]
"""Told, of the first seed: the name of a contender, the contender, the requests, and how it served them."""


def details_document(policies: Mapping[str, Details], seed: int = 0) -> dict[str, Any]:
    """The object of details.json."""
    return {"schema": SCHEMA, "seed": seed, "shares": _short(SHARES), "policies": dict(policies)}


def details_of(
    contender: Contender,
    served: Served,
    workload: Workload,
    config: EngineConfig,
    predicted: NDArray[np.float64] | None = None,
) -> Details:
    """Distributions and timeline of one run.

    A policy of the table is run again and looked at on the way. Others are drawn from the schedule they recorded, and
    from their requests' times where they recorded none: KV use and preemptions are then unknown.

    Args:
        contender: who decided.
        served: its run.
        workload: the requests.
        config: the engine.
        predicted: what the policy was told of output lengths, as in `simulate`.

    Returns:
        "distributions": see `distributions_of`; "timeline": see `sampled_timeline`.
    """
    result = served.result
    if isinstance(contender, Policy) and result.makespan_s > 0.0:
        timeline = sampled_timeline(workload, config, contender, predicted, result.makespan_s)
    elif result.schedule:
        timeline = recorded_timeline(result, config.num_kv_tokens)
    else:
        timeline = timeline_of_requests(result, result.makespan_s)
    return {"distributions": distributions_of(result), "timeline": timeline}


def is_recorded(contender: Contender, workload: Workload) -> bool:
    """Whether a contender has to record its schedule for `details_of`, and it is small enough."""
    plays = not isinstance(contender, (Policy, FleetContender))
    return plays and int(workload.num_output_tokens.sum()) <= MOST_RECORDED_TOKENS


def distributions_of(of: SimulationResult | RequestLog) -> dict[str, list[float]]:
    """Latency, TTFT and TPOT, seconds: the time within which each of `SHARES` of the requests had them; maybe none."""
    found = {}
    for name in _TIMES:
        values = getattr(of, name)
        kept = values[np.isfinite(values)]
        found[name] = _short(np.quantile(kept, SHARES)) if kept.size else []
    return found


def sampled_timeline(
    workload: Workload, config: EngineConfig, policy: Policy, predicted: NDArray[np.float64] | None, end_s: float
) -> Details:
    """What an engine holds over time, in evenly long parts of a run.

    Args:
        workload: the requests.
        config: the engine.
        policy: decides.
        predicted: as in `simulate`.
        end_s: the makespan, seconds.

    Returns:
        "time_s", the ends of the parts, and lists as long: "num_waiting", "num_prefills", "num_decodes" (requests) and
        "kv_use" (share of blocks held), each the mean of some looks at ends of iterations; "num_preemptions".
    """
    session = Session(workload, config, policy, predicted, asynchronous=True)
    seen = []
    for moment in np.linspace(0.0, end_s, NUM_MOMENTS * _LOOKS):
        runs = session.run(float(moment))
        disband(session.engine.core)
        core = session.engine.record[0]
        prefills = int(core["num_running_prefills"])
        used = 1.0 - float(core["free_blocks"]) / float(core["num_blocks"])
        counts = (int(core["num_waiting"]), prefills, int(core["num_running"]) - prefills)
        seen.append((moment, *counts, used, int(core["num_preemptions"])))
        session.recorder.empty(session.engine)
        if not runs:
            break
    table = np.array(seen, np.float64)
    table[:, 5] = np.diff(table[:, 5], prepend=0.0)
    return _timeline(table)


def recorded_timeline(result: SimulationResult, kv_tokens: int) -> Details:
    """The same from a recorded schedule, at the ends of iterations; passes of one token count as decodes.

    Raises:
        ValueError: the run did not record its schedule.
    """
    if result.schedule is None:
        raise ValueError("the run has no schedule; simulate with record_schedule=True")
    arrivals = np.sort(result.arrival_s[result.status != STATUS_NAMES.index("rejected")])
    swapped = result.num_recomputed_tokens_of == 0  # such a victim keeps its KV for its return
    resident = np.zeros(len(result.workload), np.int64)
    running: set[int] = set()
    held = num_finished = 0
    seen = []
    for iteration in result.schedule:
        for r in running.intersection(iteration.preempted):
            running.remove(r)
            held -= int(resident[r])
            resident[r] *= swapped[r]
        decodes = 0
        for r, tokens in iteration.batch:
            decodes += tokens == 1 and bool(result.first_token_s[r] <= iteration.start_s)
            held += tokens + (0 if r in running else int(resident[r]))
            resident[r] += tokens
            running.add(r)
        arrived = int(np.searchsorted(arrivals, iteration.end_s, side="right"))
        counts = (arrived - num_finished - len(running), len(running) - decodes, decodes)
        seen.append((iteration.end_s, *counts, held / kv_tokens, len(iteration.preempted)))
        for r in [r for r, _ in iteration.batch if result.finish_s[r] <= iteration.end_s]:
            running.remove(r)
            held -= int(resident[r])
            num_finished += 1
    return _timeline(np.array(seen, np.float64))


def timeline_of_requests(of: SimulationResult | RequestLog, end_s: float, by_first_token: bool = False) -> Details:
    """What the times of the requests alone tell: who waits, and who runs or was preempted meanwhile.

    Args:
        of: a run, or a server's log.
        end_s: where the timeline ends, seconds.
        by_first_token: as in `occupancy`.
    """
    held = occupancy(of, np.linspace(0.0, max(end_s, 1e-9), NUM_MOMENTS), by_first_token)
    return {
        "time_s": _short(held.time_s),
        "num_waiting": held.waiting.tolist(),
        "num_running": held.running.tolist(),
        "context_tokens": _short(held.context_tokens),
    }


def _timeline(table: NDArray[np.float64]) -> Details:
    """(k, 6) moments, waiting, prefills, decodes, KV use, preemptions; in parts, of which there are not too many."""
    starts = np.arange(0, len(table), -(-len(table) // NUM_MOMENTS))
    sums = np.add.reduceat(table, starts, axis=0)
    sizes = np.diff(starts, append=len(table))
    means = (sums / sizes[:, None]).T
    return {
        "time_s": _short(table[starts + sizes - 1, 0]),
        "num_waiting": _short(means[1]),
        "num_prefills": _short(means[2]),
        "num_decodes": _short(means[3]),
        "kv_use": _short(means[4]),
        "num_preemptions": sums[:, 5].astype(np.int64).tolist(),
    }


def _short(values: ArrayLike) -> list[float]:
    """Five digits are more than a picture shows."""
    return [float(f"{value:.5g}") for value in np.asarray(values, np.float64).tolist()]
