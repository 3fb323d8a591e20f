"""What tokens cost within an SLO: rented GPUs at the highest rate that they carry."""

from __future__ import annotations

import math

import numpy as np

from infermax_gym.engine import EngineConfig, Slo, meets_slo
from infermax_gym.evaluation.capacity import highest_rate
from infermax_gym.evaluation.contenders import Contender, serve, with_slo
from infermax_gym.evaluation.fleets import FleetContender
from infermax_gym.workload import Workload

Cost = dict[str, float | None]


def cost_figures(
    contender: Contender,
    workload: Workload,
    config: EngineConfig,
    slo: Slo,
    attainment: float,
    *,
    seed: int = 0,
    tolerance: float = 0.01,
) -> Cost:
    """The highest rate within the SLO, and what output tokens cost at it.

    The GPUs are paid by the hour, whether they compute or not.

    Args:
        contender: who decides; a fleet pays for all its replicas.
        workload: the requests of open traffic, whose rate does not matter.
        config: the engine of each replica.
        slo: limits of requests that have none of their own.
        attainment: share of the requests that must meet theirs.
        seed: of routers and players.
        tolerance: the found rate is met, and (1 + tolerance) times it is not.

    Returns:
        "rate_per_s" (inf if the requests are too few to miss their limits at any rate), "usd_per_h" and
        "usd_per_million_tokens" (None without a price, or where no rate is within the SLO).
    """

    def meets(rate: float) -> bool:
        result = serve(contender, with_slo(workload.with_rate(rate), slo), config, seed=seed)
        met = meets_slo(result, slo)
        return met is None or float(met.mean()) >= attainment

    replicas = contender.num_replicas if isinstance(contender, FleetContender) else 1
    rate = highest_rate(meets, float(replicas), tolerance)
    price = config.cost.price_usd_per_device_hour
    hourly = None if price is None else price * config.cost.num_devices * replicas
    tokens_per_h = 3600.0 * rate * float(np.mean(workload.num_output_tokens))
    priced = hourly is not None and 0.0 < tokens_per_h < math.inf
    return {
        "rate_per_s": rate,
        "usd_per_h": hourly,
        "usd_per_million_tokens": 1e6 * hourly / tokens_per_h if priced and hourly is not None else None,
    }
