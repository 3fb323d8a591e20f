"""Metrics of a run, all from its per-request records. Percentiles interpolate linearly.

`summarize` defines every figure; a figure that does not exist is None (`null` in JSON), never 0 or nan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.result import SimulationResult

_PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


@dataclass(frozen=True)
class Slo:
    """Service-level objectives in seconds; None asks nothing.

    A request's own limits (`Workload.ttft_slo_s`, `tpot_slo_s`) take the place of these where it has some.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None


def distribution(samples: NDArray[np.float64], counts: NDArray[Any] | None = None) -> dict[str, float | None]:
    """Mean, p50, p90, p99 and max of samples, each taken `counts` times; None where there is no sample.

    Args:
        samples: (k,) float64, not negative where there are counts.
        counts: (k,) positive integers, or None for once each.
    """
    if samples.size == 0:
        return {"mean": None, **dict.fromkeys(_PERCENTILES), "max": None}
    if counts is None:
        figures = dict(zip(_PERCENTILES, np.quantile(samples, list(_PERCENTILES.values())), strict=True))
        return {"mean": float(samples.mean()), **{k: float(v) for k, v in figures.items()}, "max": float(samples.max())}
    total = int(counts.sum(dtype=np.int64))
    # Not np.dot, whose last digit depends on how many threads it takes.
    result: dict[str, float | None] = {"mean": float((samples * counts).sum() / total)}
    positions = {name: q * (total - 1) for name, q in _PERCENTILES.items()}
    ranks = {int(p) for p in positions.values()} | {min(int(p) + 1, total - 1) for p in positions.values()}
    sample_of = _order_statistics(samples, counts, sorted(ranks))
    for name, position in positions.items():
        low = int(position)
        a, b = sample_of[low], sample_of[min(low + 1, total - 1)]
        result[name] = a + (b - a) * (position - low)
    result["max"] = float(samples.max())
    return result


_CHUNK = 1 << 20


def _order_statistics(samples: NDArray[np.float64], counts: NDArray[Any], ranks: list[int]) -> dict[int, float]:
    """The samples at some ranks of the expanded sample, without sorting or copying all of them.

    Floats that are not negative are ordered like their bit patterns, so the leading bits sort samples into narrow
    bins, 256 for each power of two; only the bins that hold the ranks are looked into.
    """
    lowest, highest = (int(np.array([x]).view(np.int64)[0]) >> 44 for x in (samples.min(), samples.max()))
    weight_of = np.zeros(highest - lowest + 1)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(samples), _CHUNK)]
    for chunk in chunks:
        weight_of += np.bincount(_bins(samples[chunk], lowest), counts[chunk], len(weight_of))
    ends = np.cumsum(weight_of).astype(np.int64)
    bins = np.searchsorted(ends, ranks, side="right").tolist()
    inside: dict[int, list[NDArray[np.int64]]] = {k: [] for k in bins}
    for chunk in chunks:
        found = _bins(samples[chunk], lowest)
        for k, indices in inside.items():
            indices.append(np.flatnonzero(found == k) + chunk.start)
    result = {}
    for rank, k in zip(ranks, bins, strict=True):
        members = np.concatenate(inside[k])
        members = members[np.argsort(samples[members])]
        before = ends[k] - int(weight_of[k])
        position = np.searchsorted(before + np.cumsum(counts[members], dtype=np.int64), rank, side="right")
        result[rank] = float(samples[members[position]])
    return result


def _bins(samples: NDArray[np.float64], lowest: int) -> NDArray[np.int64]:
    return np.asarray((samples.view(np.int64) >> 44) - lowest)


def meets_slo(result: SimulationResult, slo: Slo | None) -> NDArray[np.bool_] | None:
    """(n,) whether each request meets all its SLOs, or None if nobody has any.

    Unfinished and rejected requests miss. A single-token output has no TPOT and meets that limit.
    """
    workload = result.workload
    slo = slo or Slo()
    ttft = np.where(np.isfinite(workload.ttft_slo_s), workload.ttft_slo_s, _limit(slo.ttft_s))
    tpot = np.where(np.isfinite(workload.tpot_slo_s), workload.tpot_slo_s, _limit(slo.tpot_s))
    latency = _limit(slo.latency_s)
    if not (np.isfinite(ttft).any() or np.isfinite(tpot).any() or np.isfinite(latency)):
        return None
    tpot_s = np.nan_to_num(result.tpot_s, nan=0.0)
    with np.errstate(invalid="ignore"):
        met = (result.ttft_s <= ttft) & (tpot_s <= tpot) & (result.latency_s <= latency)
    return np.asarray(met & result.finished)


def _limit(value: float | None) -> float:
    return np.inf if value is None else value


def gpu_cost_usd(result: SimulationResult, config: EngineConfig) -> float | None:
    """What the computation costs in US dollars: busy hours x devices x price of a device hour.

    Busy seconds are those in which iterations run; an engine that waits for requests costs nothing, so the figure
    compares schedulers whatever the traffic. Returns None where the cost model has no price.
    """
    price = config.cost.price_usd_per_device_hour
    return None if price is None else result.busy_s / 3600.0 * config.cost.num_devices * price


def summarize(result: SimulationResult, config: EngineConfig, slo: Slo | None = None) -> dict[str, Any]:
    """The figures of a run under the names of `infermax bench --json`.

    - `num_requests` is all requests; `num_rejected` those that can never fit; what is neither finished nor rejected was
      left unfinished.
    - `ttft_s` is over requests with a first token, `tpot_s` over finished ones with more than one token, `itl_s` over
      all gaps between successive tokens, `latency_s` over finished ones: mean, p50, p90, p99, max.
    - `makespan_s` is when the last request finished. Throughput counts output tokens and finished requests,
      `goodput_per_s` finished requests within all their limits, each per second of it; `kv_utilization` is the mean
      share of KV blocks held until then.
    - `slo_attainment` is the share of *all* requests that finished within their limits: rejected and unfinished
      ones are misses.
    - `busy_s` is the sum of iteration durations; `gpu_cost_usd` charges it, not the makespan.

    None stands for what does not exist: the distributions without a sample; everything per makespan, and the makespan,
    where nothing finished; goodput and attainment where no request has a limit, attainment where there is no request;
    the cost without a price; `prefix_hit_rate` without a prefix cache.

    Args:
        result: a run.
        config: the replica that served it.
        slo: limits of requests that have none of their own.
    """
    finished = result.finished
    per_second = 1.0 / result.makespan_s if finished.any() and result.makespan_s > 0.0 else None
    met = meets_slo(result, slo)
    tpot_s = result.tpot_s[finished]

    def rate(count: Any) -> float | None:
        return None if per_second is None else float(count) * per_second

    return {
        "num_requests": len(result.workload),
        "num_finished": int(finished.sum()),
        "num_rejected": int((result.status == 1).sum()),
        "makespan_s": result.makespan_s if finished.any() else None,
        "busy_s": result.busy_s,
        "num_iterations": result.num_iterations,
        "num_preemptions": result.num_preemptions,
        "num_recomputed_tokens": result.num_recomputed_tokens,
        "num_guarded_iterations": result.num_guarded_iterations,
        "ttft_s": distribution(result.ttft_s[np.isfinite(result.first_token_s)]),
        "tpot_s": distribution(tpot_s[np.isfinite(tpot_s)]),
        "itl_s": distribution(result.gap_s, result.gap_counts),
        "latency_s": distribution(result.latency_s[finished]),
        "throughput_tokens_per_s": rate(result.num_generated_tokens.sum()),
        "throughput_requests_per_s": rate(finished.sum()),
        "goodput_per_s": None if met is None else rate(met.sum()),
        "slo_attainment": None if met is None or not met.size else float(met.mean()),
        "kv_utilization": result.kv_utilization if finished.any() else None,
        "prefix_hit_rate": result.prefix_hit_rate,
        "gpu_cost_usd": gpu_cost_usd(result, config),
    }
