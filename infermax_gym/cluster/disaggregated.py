"""Prefill and decode on different replicas: one fleet computes prompts, hands the KV over, another one decodes.

Sources of the idea: DistServe (2401.09670), Splitwise (2311.18677). docs/cluster.md states the semantics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.fleet import Fleet, Replica
from infermax_gym.cluster.result import FleetResult, summarize_fleet, utilization_of
from infermax_gym.cluster.router import PythonRouter, Router
from infermax_gym.cluster.simulate import Predicted, simulate_fleet
from infermax_gym.cluster.transfer import KvTransfer
from infermax_gym.engine import SimulationResult, Slo, summarize
from infermax_gym.engine.policy import PreemptMode
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class DisaggregatedFleet:
    """Two pools of replicas.

    Attributes:
        prefill: computes prompts, each up to its first output token.
        decode: computes all later tokens.
        transfer: what lies between them.

    Raises:
        ValueError: a decode replica's policy swaps: what comes from the prefill replicas takes the way of swapped KV.
    """

    prefill: Fleet
    decode: Fleet
    transfer: KvTransfer = field(default_factory=KvTransfer)

    def __post_init__(self) -> None:
        for replica in self.decode.replicas:
            if replica.policy.preempt_mode == PreemptMode.SWAP:
                raise ValueError(
                    f"policy {replica.policy.name!r} swaps; decode replicas must recompute what they evict"
                )


@dataclass(frozen=True, eq=False)
class DisaggregatedResult:
    """One run of a disaggregated fleet.

    Attributes:
        pooled: the records of all requests, in order of arrival; totals are sums over both pools.
        prefill: the prefill pool's run: the same requests in the same order, with one output token each.
        decode: the decode pool's run, of those with more, in order of `handed_over`; arrivals are when their KV
            was there.
        handed_over: (k,) int64, the requests of the decode pool's run, by number.
    """

    pooled: SimulationResult
    prefill: FleetResult
    decode: FleetResult
    handed_over: NDArray[np.int64]


def simulate_disaggregated(
    workload: Workload,
    fleet: DisaggregatedFleet,
    prefill_router: Router | PythonRouter,
    decode_router: Router | PythonRouter,
    *,
    seed: int = 0,
    predicted: Predicted | None = None,
) -> DisaggregatedResult:
    """Serve a workload to its end; arguments as in `simulate_fleet`.

    Neither pool waits for the other, so the prefill pool runs first, to its end, then the decode pool.

    Raises:
        ValueError: a policy needs predictions and got none, or they are malformed; or requests are sent when others
            have ended, so that the pools would wait for each other.
    """
    if workload.is_closed_loop:
        raise ValueError(
            f"{workload.name}: requests are sent when others have ended; disaggregated pools need known arrivals"
        )
    served = np.flatnonzero(_fits(fleet.prefill, workload, 1) & _fits(fleet.decode, workload, None))
    prompts = _rows(workload, served, workload.arrival_s[served], np.ones(len(served), np.int64))
    prefill = simulate_fleet(
        prompts, fleet.prefill, prefill_router, seed=seed, predicted=_lengths_of(predicted, served)
    )
    first_token_s = prefill.pooled.first_token_s
    there_s = first_token_s + fleet.transfer.seconds(prompts.num_prompt_tokens)
    lasting = np.flatnonzero(workload.num_output_tokens[served] > 1)
    order = lasting[np.argsort(there_s[lasting], kind="stable")]
    handed_over = served[order]
    outputs = _rows(workload, handed_over, there_s[order], workload.num_output_tokens[handed_over])
    decode = simulate_fleet(
        outputs,
        _free_of_charge(fleet.decode),
        decode_router,
        seed=seed,
        predicted=_lengths_of(predicted, handed_over),
        prefilled_s=first_token_s[order],
    )
    return DisaggregatedResult(
        _pooled(workload, fleet, prefill, decode, served, handed_over), prefill, decode, handed_over
    )


def summarize_disaggregated(result: DisaggregatedResult, slo: Slo | None = None) -> dict[str, Any]:
    """The figures of `summarize_fleet` for both pools together.

    `request_imbalance` and `busy_imbalance` are those of the decode pool, `prefill_busy_imbalance` is the other's.
    """
    prefill, decode = summarize_fleet(result.prefill), summarize_fleet(result.decode)
    figures = summarize(result.pooled, result.prefill.fleet.replicas[0].config, slo)
    for name in ("gpu_cost_usd", "fleet_cost_usd_per_h"):
        parts = prefill[name], decode[name]
        figures[name] = None if None in parts else sum(parts)
    for name in ("num_migrations", "num_aborted_migrations"):
        if name in decode:
            figures[name] = decode[name]
    return {
        **figures,
        "request_imbalance": decode["request_imbalance"],
        "busy_imbalance": decode["busy_imbalance"],
        "prefill_busy_imbalance": prefill["busy_imbalance"],
    }


def _fits(fleet: Fleet, workload: Workload, num_output_tokens: int | None) -> NDArray[np.bool_]:
    """(n,) whether some replica can ever hold each request; None: with its own output."""
    outputs = workload.num_output_tokens if num_output_tokens is None else num_output_tokens
    total = workload.num_prompt_tokens + outputs
    fits = np.zeros(len(workload), bool)
    for replica in fleet.kinds[0]:
        config = replica.config
        fits |= (-(-(total - 1) // config.block_size) <= config.num_blocks) & (
            total <= (config.max_model_len or np.iinfo(np.int64).max)
        )
    return fits


def _free_of_charge(fleet: Fleet) -> Fleet:
    """The decode pool with KV that comes onto the device at no cost: its transfer is over when it arrives."""
    kinds, kind_of = fleet.kinds
    free = [Replica(replace(kind.config, swap_tokens_per_s=math.inf), kind.policy) for kind in kinds]
    return replace(fleet, replicas=tuple(free[kind] for kind in kind_of))


def _rows(
    workload: Workload, rows: NDArray[np.int64], arrival_s: NDArray[np.float64], num_output_tokens: NDArray[np.int64]
) -> Workload:
    """Some requests of a workload with other arrivals and outputs."""
    kept = {
        name: getattr(workload, name)[rows]
        for name in ("num_prompt_tokens", "priority", "tenant", "slo_class", "ttft_slo_s", "tpot_slo_s")
    }
    counts = np.diff(workload.prefix_start)[rows]
    start = np.concatenate(([0], np.cumsum(counts)))
    hashes = np.repeat(workload.prefix_start[rows] - start[:-1], counts) + np.arange(start[-1])
    return Workload(
        arrival_s,
        num_output_tokens=num_output_tokens,
        **kept,
        prefix_blocks=workload.prefix_blocks[hashes],
        prefix_start=start,
        prefix_block_size=workload.prefix_block_size,
        tenant_names=workload.tenant_names,
        slo_class_names=workload.slo_class_names,
        name=workload.name,
    )


def _lengths_of(predicted: Predicted | None, chosen: NDArray[np.int64]) -> Predicted | None:
    if isinstance(predicted, Mapping):
        return {name: np.asarray(lengths, np.float64)[chosen] for name, lengths in predicted.items()}
    return None if predicted is None else np.asarray(predicted, np.float64)[chosen]


def _pooled(
    workload: Workload,
    fleet: DisaggregatedFleet,
    prefill: FleetResult,
    decode: FleetResult,
    served: NDArray[np.int64],
    handed_over: NDArray[np.int64],
) -> SimulationResult:
    first, rest = prefill.pooled, decode.pooled
    n = len(workload)

    def spread(prefill_column: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        column = np.full(n, np.nan)
        column[served] = prefill_column
        return column

    def summed(name: str) -> NDArray[np.int64]:
        column = np.zeros(n, np.int64)
        column[served] = getattr(first, name)
        column[handed_over] += getattr(rest, name)
        return column

    finish_s = spread(first.finish_s)
    finish_s[handed_over] = rest.finish_s
    generated = np.zeros(n, np.int64)
    generated[served] = first.num_generated_tokens
    generated[handed_over] = rest.num_generated_tokens
    status = np.ones(n, np.int8)
    status[served] = first.status
    status[handed_over] = rest.status
    makespan_s = max(first.makespan_s, rest.makespan_s)
    return SimulationResult(
        workload=workload,
        first_scheduled_s=spread(first.first_scheduled_s),
        first_token_s=spread(first.first_token_s),
        finish_s=finish_s,
        num_preemptions_of=summed("num_preemptions_of"),
        num_recomputed_tokens_of=summed("num_recomputed_tokens_of"),
        num_generated_tokens=generated,
        status=status,
        gap_s=np.concatenate([first.gap_s, rest.gap_s]),
        gap_counts=np.concatenate([first.gap_counts, rest.gap_counts]),
        makespan_s=makespan_s,
        busy_s=first.busy_s + rest.busy_s,
        num_iterations=first.num_iterations + rest.num_iterations,
        num_decisions=first.num_decisions + rest.num_decisions,
        num_preemptions=first.num_preemptions + rest.num_preemptions,
        num_recomputed_tokens=first.num_recomputed_tokens + rest.num_recomputed_tokens,
        num_guarded_iterations=first.num_guarded_iterations + rest.num_guarded_iterations,
        kv_utilization=utilization_of((prefill, decode), makespan_s),
        num_cached_tokens_of=_cached(n, prefill, decode, served, handed_over),
    )


def _cached(
    n: int, prefill: FleetResult, decode: FleetResult, served: NDArray[np.int64], handed_over: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n,) tokens found in prefix caches, empty without any."""
    parts = ((served, prefill.pooled.num_cached_tokens_of), (handed_over, decode.pooled.num_cached_tokens_of))
    if not any(replica.config.prefix_caching for part in (prefill, decode) for replica in part.fleet.kinds[0]):
        return np.zeros(0, np.int64)
    cached = np.zeros(n, np.int64)
    for rows, found in parts:
        if found.size:
            cached[rows] += found
    return cached
