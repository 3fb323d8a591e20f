"""A real engine's log of requests replayed by the simulator, and how far apart the two are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, SimulationResult, distribution, summarize
from infermax_gym.workload.request_log import RequestLog

_STATISTICS = ("mean", "p50", "p90", "p99")
_NUM_MOMENTS = 2_000


def real_figures(log: RequestLog) -> dict[str, Any]:
    """The figures of a log under the names of `infermax bench --json`; those that a log does not tell are left out."""
    tpot = log.tpot_s
    makespan = float(log.finish_s.max())
    return {
        "num_requests": len(log),
        "num_finished": len(log),
        "makespan_s": makespan,
        "ttft_s": distribution(log.ttft_s),
        "tpot_s": distribution(tpot[np.isfinite(tpot)]),
        "latency_s": distribution(log.latency_s),
        "throughput_tokens_per_s": float(log.workload.num_output_tokens.sum()) / makespan,
        "throughput_requests_per_s": len(log) / makespan,
    }


def compare(log: RequestLog, result: SimulationResult, chosen: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """Errors of a replay.

    Args:
        log: what happened.
        result: the replay of its workload.
        chosen: (n,) requests to compare; all that finished by default.

    Returns:
        "error": of TTFT, TPOT and latency, simulated / real - 1 of mean, p50, p90 and p99; "correlation" of TTFT and
        latency over the requests; "median_request_error": the median over the requests of |simulated / real - 1|. What
        does not exist is None.
    """
    mask = result.finished if chosen is None else chosen & result.finished
    error: dict[str, Any] = {}
    correlation: dict[str, float | None] = {}
    median: dict[str, float | None] = {}
    for name in ("ttft_s", "tpot_s", "latency_s"):
        real, simulated = getattr(log, name)[mask], getattr(result, name)[mask]
        both = np.isfinite(real) & np.isfinite(simulated)
        real, simulated = real[both], simulated[both]
        of_real, of_simulated = distribution(real), distribution(simulated)
        error[name] = {key: _relative(of_simulated[key], of_real[key]) for key in _STATISTICS}
        positive = real > 0.0
        ratios = simulated[positive] / real[positive]
        median[name] = float(np.median(np.abs(ratios - 1.0))) if ratios.size else None
        if name != "tpot_s":
            correlation[name] = _correlation(real, simulated)
    return {"error": error, "correlation": correlation, "median_request_error": median}


def replay_document(config: dict[str, Any], log: RequestLog, result: SimulationResult, engine: EngineConfig) -> Any:
    """The object that `infermax replay --json` prints."""
    return {
        "schema": 1,
        "config": config,
        "real": real_figures(log),
        "simulated": summarize(result, engine),
        **compare(log, result),
    }


def _relative(simulated: float | None, real: float | None) -> float | None:
    return None if simulated is None or not real else simulated / real - 1.0


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    if len(a) < 2 or a.std() == 0.0 or b.std() == 0.0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True, eq=False)
class Occupancy:
    """What an engine holds over time, by the same reckoning for a log and a replay.

    Attributes:
        time_s: (k,) moments.
        waiting: (k,) requests that arrived and were not yet scheduled; without that time, that have no token yet.
        running: (k,) requests that were scheduled and did not finish, those preempted meanwhile included.
        context_tokens: (k,) tokens of their prompts and answers so far, answers growing evenly.
    """

    time_s: NDArray[np.float64]
    waiting: NDArray[np.int64]
    running: NDArray[np.int64]
    context_tokens: NDArray[np.float64]


def occupancy(
    of: RequestLog | SimulationResult, time_s: NDArray[np.float64], by_first_token: bool = False
) -> Occupancy:
    """What was held at (k,) moments.

    Args:
        of: a log, or a replay.
        time_s: the moments.
        by_first_token: count a request as running from its first token on, as a log without scheduling times must.
    """
    workload = of.workload
    started = of.first_token_s if by_first_token else of.first_scheduled_s
    started = np.where(np.isfinite(started), started, np.inf)
    finished = np.where(np.isfinite(of.finish_s), of.finish_s, np.inf)
    waiting = _count(workload.arrival_s, time_s) - _count(started, time_s)
    running = _count(started, time_s) - _count(finished, time_s)
    tokens = np.zeros(len(time_s))
    for r in np.flatnonzero(np.isfinite(started)):
        inside = (time_s >= started[r]) & (time_s < finished[r])
        length = max(finished[r] - of.first_token_s[r], 1e-12)
        share = np.clip((time_s[inside] - of.first_token_s[r]) / length, 0.0, 1.0)
        tokens[inside] += workload.num_prompt_tokens[r] + share * workload.num_output_tokens[r]
    return Occupancy(time_s, waiting, running, tokens)


def occupancy_error(log: RequestLog, result: SimulationResult, chosen: NDArray[np.bool_]) -> dict[str, float | None]:
    """Errors of the mean numbers of waiting and running requests while the chosen requests arrive and are served.

    Args:
        log: what happened.
        result: a replay of it.
        chosen: (n,) the requests, at least one.
    """
    times = np.linspace(float(log.workload.arrival_s[chosen].min()), float(log.finish_s[chosen].max()), _NUM_MOMENTS)
    blind = bool(np.isnan(log.first_scheduled_s).any())
    real, simulated = (occupancy(of, times, by_first_token=blind) for of in (log, result))
    return {
        name: _relative(float(getattr(simulated, name).mean()), float(getattr(real, name).mean()))
        for name in ("waiting", "running")
    }


def _count(events: NDArray[np.float64], time_s: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.searchsorted(np.sort(events), time_s, side="right").astype(np.int64)
