"""How much a fleet carries: the highest rate or the most clients within an SLO, and the smallest fleet for a rate.

Common random numbers: seed k draws one workload, whose arrivals are only stretched or squeezed to other rates, so every
policy, router and number of replicas faces the same requests, and what differs between them is not luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from infermax_gym.engine import EngineConfig, Slo, meets_slo
from infermax_gym.evaluation.contenders import no_predictions, serve, with_slo
from infermax_gym.evaluation.fleets import FleetContender, Predict
from infermax_gym.evaluation.statistics import mean_and_ci95
from infermax_gym.workload import Traffic, Workload

_DOUBLINGS = 24


@dataclass(frozen=True)
class Demand:
    """What a fleet is asked for.

    Attributes:
        requests: (seed, number of replicas) to the requests, whose rate does not matter.
        config: the engine of every replica.
        slo: limits on each request.
        attainment: share of the requests that must meet theirs.
        seeds: see the module's docstring.
        predict: the predictor.
    """

    requests: Callable[[int, int], Workload]
    config: EngineConfig
    slo: Slo
    attainment: float = 0.9
    seeds: Sequence[int] = (0,)
    predict: Predict = no_predictions

    def attained(self, contender: FleetContender, rate_per_s: float, seed: int) -> float:
        """Share of the requests within their limits at a rate, for one seed."""
        return self._attained(contender, self.requests(seed, contender.num_replicas).with_rate(rate_per_s), seed)

    def attained_by(self, contender: FleetContender, traffic: Traffic, seed: int) -> float:
        """The same where clients send the requests, each its next one when its last has ended."""
        return self._attained(contender, traffic(self.requests(seed, contender.num_replicas)), seed)

    def _attained(self, contender: FleetContender, requests: Workload, seed: int) -> float:
        workload = with_slo(requests, self.slo)
        result = serve(contender, workload, self.config, seed=seed, predict=self.predict)
        met = meets_slo(result, self.slo)
        return 1.0 if met is None else float(met.mean())


@dataclass(frozen=True)
class Capacity:
    """The highest rate that a fleet carries.

    Attributes:
        contender: the fleet.
        rate_per_s: mean over the seeds of each seed's highest rate, in requests per second; inf if some seed's
            requests meet the SLO at any rate (they are too few), 0.0 where a seed's miss it at every rate.
        ci95_per_s: half-width of its 95 % interval (Student's t); nan for a single seed.
        per_seed: the highest rate of each seed.
    """

    contender: FleetContender
    rate_per_s: float
    ci95_per_s: float
    per_seed: tuple[float, ...]


def find_capacity(contender: FleetContender, demand: Demand, tolerance: float = 0.01) -> Capacity:
    """The highest rate at which the demanded share of requests meets the SLO.

    Bisection, seed by seed, on the logarithm of the rate. The share falls with the rate but for noise; where noise
    makes it cross the target more than once, one of the crossings is found.

    Args:
        contender: the fleet.
        demand: what is asked of it.
        tolerance: the found rate is met, and (1 + tolerance) times it is not.
    """

    def highest(seed: int) -> float:
        return highest_rate(
            lambda rate: demand.attained(contender, rate, seed) >= demand.attainment,
            float(contender.num_replicas),
            tolerance,
        )

    rates = tuple(highest(seed) for seed in demand.seeds)
    if not all(map(math.isfinite, rates)):
        return Capacity(contender, math.inf, math.nan, rates)
    mean, half = mean_and_ci95(rates)
    return Capacity(contender, mean, half, rates)


def highest_rate(meets: Callable[[float], bool], start: float, tolerance: float) -> float:
    """The largest rate that meets, to a relative tolerance; 0.0 if none does, inf if every one does.

    Example:
        >>> round(highest_rate(lambda rate: rate <= 3.0, 1.0, 0.001), 2)
        3.0
    """
    low, high = (start, 2.0 * start) if meets(start) else (0.5 * start, start)
    step = 2.0 if low == start else 0.5
    for _ in range(_DOUBLINGS):
        if step > 1.0 and not meets(high):
            break
        if step < 1.0 and meets(low):
            break
        low, high = low * step, high * step
    else:
        return math.inf if step > 1.0 else 0.0
    while high > low * (1.0 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Concurrency:
    """The most clients that a fleet serves, each of which sends its next request when its last has ended.

    Attributes:
        contender: the fleet.
        clients: mean over the seeds of each seed's most clients; inf if some seed's requests meet the SLO even if all
            are sent at once (they are too few).
        ci95: half-width of its 95 % interval (Student's t); nan for a single seed.
        per_seed: the most clients of each seed.
    """

    contender: FleetContender
    clients: float
    ci95: float
    per_seed: tuple[float, ...]


def find_concurrency(contender: FleetContender, demand: Demand, traffic: Traffic) -> Concurrency:
    """The most clients with whom the demanded share of requests meets the SLO.

    Doubling, then halving, seed by seed; it takes for granted that more clients are not better.

    Args:
        contender: the fleet.
        demand: what is asked of it.
        traffic: how long clients think, and over what time they begin.
    """

    def most(seed: int) -> float:
        def meets(clients: int) -> bool:
            many = replace(traffic, concurrency=clients)
            return demand.attained_by(contender, many, seed) >= demand.attainment

        return _most_clients(meets, len(demand.requests(seed, contender.num_replicas)))

    found = tuple(most(seed) for seed in demand.seeds)
    if not all(map(math.isfinite, found)):
        return Concurrency(contender, math.inf, math.nan, found)
    return Concurrency(contender, *mean_and_ci95(found), found)


def _most_clients(meets: Callable[[int], bool], num_requests: int) -> float:
    """The largest number that meets; 0 if one does not, inf if as many as there are requests do.

    Example:
        >>> _most_clients(lambda clients: clients <= 37, 1000)
        37.0
    """
    low, high = 0, 1
    while meets(high):
        if high >= num_requests:
            return math.inf
        low, high = high, min(2 * high, num_requests)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return float(low)


@dataclass(frozen=True)
class Sizing:
    """The smallest fleet for a rate.

    Attributes:
        contender: the fleet, with that many replicas; None if `most` are too few.
        attainment: share of the requests within their limits with it, mean over the seeds.
        ci95: half-width of its 95 % interval; nan for a single seed.
        cost_usd_per_h: price of its devices for an hour, or None without a price.
    """

    contender: FleetContender | None
    attainment: float
    ci95: float
    cost_usd_per_h: float | None


def find_smallest(contender: FleetContender, rate_per_s: float, demand: Demand, most: int = 1024) -> Sizing:
    """The fewest replicas that meet the SLO at a rate, everything else as the contender has it.

    A number of replicas is enough if the lower end of the 95 % interval of the share over the seeds reaches the
    target; with a single seed, if its share does. The search doubles, then halves: it takes for granted that more
    replicas are not worse.

    Args:
        contender: policy, router and signals; its number of replicas does not matter.
        rate_per_s: requests per second of the whole fleet.
        demand: what is asked of it.
        most: the search ends beyond so many replicas.
    """
    shares: dict[int, tuple[float, float]] = {}

    def is_enough(count: int) -> bool:
        fleet = replace(contender, num_replicas=count)
        mean, half = mean_and_ci95([demand.attained(fleet, rate_per_s, seed) for seed in demand.seeds])
        shares[count] = mean, half
        return mean - (0.0 if math.isnan(half) else half) >= demand.attainment

    count = 1
    while not is_enough(count):
        if count >= most:
            return Sizing(None, *shares[count], None)
        count = min(2 * count, most)
    too_few = count // 2
    while count - too_few > 1:
        middle = (count + too_few) // 2
        too_few, count = (too_few, middle) if is_enough(middle) else (middle, count)
    fleet = replace(contender, num_replicas=count)
    return Sizing(fleet, *shares[count], fleet.fleet(demand.config).cost_usd_per_h)
