"""The object that a comparison prints and stores: `infermax bench --json`, `summary.json`, what `report` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infermax_gym.engine import EngineConfig, Slo
from infermax_gym.evaluation.scenario import WorkloadSpec
from infermax_gym.workload import Workload

SCHEMA = 1


def comparison_document(
    config: Mapping[str, Any], policies: Mapping[str, Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """The object.

    Args:
        config: every option as it was understood, see `resolved_options`.
        policies: figures by name, as `Evaluation.summary` has them.
        more: further entries, left out where they are None.
    """
    given = {name: value for name, value in more.items() if value is not None}
    return {"schema": SCHEMA, "config": dict(config), "policies": dict(policies), **given}


def resolved_options(
    spec: WorkloadSpec, workload: Workload, config: EngineConfig, slo: Slo | None, **more: Any
) -> dict[str, Any]:
    """Every option as it was understood.

    Args:
        spec: the recipe for the requests.
        workload: the requests of the first seed.
        config: the engine.
        slo: the limits.
        more: further options, by name.
    """
    return {
        "workload": spec.source,
        "skip": spec.skip,
        "first": spec.first,
        "time_scale": spec.time_scale,
        "rate": spec.rate,
        **{name: value for name, value in spec.choices.items() if value is not None},
        "num_requests": len(workload),
        "span_s": float(workload.arrival_s[-1]) if len(workload) else 0.0,
        "mean_rate_per_s": workload.mean_rate_per_s,
        "cost": config.cost.name,
        "kv_tokens": config.num_kv_tokens,
        "block_size": config.block_size,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_num_seqs": config.max_num_seqs,
        "max_model_len": config.max_model_len,
        "max_output_tokens": config.max_output_tokens,
        "num_host_kv_tokens": config.num_host_kv_tokens,
        "swap_tokens_per_s": config.swap_tokens_per_s,
        "prefix_caching": config.prefix_caching,
        "empty_blocks_first": config.empty_blocks_first,
        "async_scheduling": config.async_scheduling,
        "slo": None if slo is None else _limits(slo),
        **more,
    }


def _limits(slo: Slo) -> dict[str, float]:
    limits = {"ttft": slo.ttft_s, "tpot": slo.tpot_s, "latency": slo.latency_s}
    return {name: value for name, value in limits.items() if value is not None}
