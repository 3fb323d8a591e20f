"""An engine as it may go on: a copy with imagined output lengths and imagined arrivals.

Nothing is peeked at. A request that has generated g tokens ends at one of the outputs that this engine has seen end,
drawn among those longer than g by their chance (Kaplan and Meier's estimate: requests under way count as longer than
what they have). Arrivals repeat a stretch of those so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.layout import FINISHED, LOG_ARRAYS, RUNNING, WAITING
from infermax_gym.engine.state import Engine, power_of_two_at_least
from infermax_gym.workload.predictions import noisy_lengths

FIRST_GUESS = 128
"""Output tokens beyond those generated that are imagined where nothing longer has ended yet."""

MOST_ARRIVALS = 1024
"""Of an imagined future."""


_MOST_MEMORY = 0.9
_ENOUGH = 4
_TRIES = 8


class Lengths:
    """The distribution of output lengths, estimated from what an engine has done so far.

    Args:
        ended: (k,) outputs of finished requests.
        under_way: (m,) tokens so far of the others, which will be longer.
    """

    def __init__(self, ended: NDArray[np.int64], under_way: NDArray[np.int64]) -> None:
        self.values, counts = np.unique(ended, return_counts=True)
        longer = len(ended) - np.concatenate(([0], np.cumsum(counts)[:-1])) if len(counts) else np.zeros(0)
        at_risk = longer + np.array([np.count_nonzero(under_way >= value) for value in self.values])
        survival = np.cumprod(1.0 - counts / np.maximum(at_risk, 1.0)) if len(counts) else np.zeros(0)
        before = np.concatenate(([1.0], survival))
        self.reached = 1.0 - survival
        """Chance that an output is at most each value."""
        self.chances = before[:-1] - before[1:]
        self.longest = int(max(self.values.max(initial=0), under_way.max(initial=0)))

    def draw(self, generated: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """(k,) outputs of requests that have generated so many tokens."""
        beyond = np.maximum(2 * generated, generated + FIRST_GUESS)
        if not len(self.values):
            return np.asarray(beyond, np.int64)
        first = np.searchsorted(self.values, generated, side="right")
        below = np.concatenate(([0.0], self.reached))[first]
        chance = below + rng.random(len(generated)) * (1.0 - below)
        place = np.searchsorted(self.reached, chance, side="left")
        within = (place < len(self.values)) & (below < 1.0 - 1e-12)
        longer = np.maximum(beyond, 2 * self.longest)  # nothing so long has ended yet
        longer = np.where(first < len(self.values), longer, beyond)
        drawn = self.values[np.minimum(place, len(self.values) - 1)]
        return np.asarray(np.where(within, np.maximum(drawn, generated + 1), longer), np.int64)

    def told(
        self, generated: NDArray[np.int64], predicted: NDArray[np.float64], sigma: float, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """(k,) outputs of requests whose lengths were predicted with a log-normal error.

        The logarithm is normal about the prediction and about what has ended, each weighed by its precision.
        """
        logs = np.log(np.maximum(predicted, 1.0)) + 0.5 * sigma**2
        precision = np.full(len(logs), 1.0 / max(sigma, 1e-3) ** 2)
        mean = logs
        if len(self.values) >= _ENOUGH:
            known, weight = np.log(self.values), self.chances / self.chances.sum()
            centre = float(weight @ known)
            prior = 1.0 / max(float(weight @ (known - centre) ** 2), 0.01)
            mean = (precision * logs + prior * centre) / (precision + prior)
            precision = precision + prior
        draws = np.exp(mean + rng.standard_normal((_TRIES, len(logs))) / np.sqrt(precision))
        long_enough = draws > generated
        first = np.argmax(long_enough, axis=0)
        drawn = draws[first, np.arange(len(logs))]
        beyond = np.maximum(2 * generated, generated + FIRST_GUESS)
        return np.asarray(np.ceil(np.where(long_enough.any(axis=0), drawn, beyond)), np.int64)


def imagined(engine: Engine, rng: np.random.Generator, horizon_s: float = 0.0, sigma: float | None = None) -> Engine:
    """A copy of an engine that holds the requests present, and arrivals imagined for some seconds.

    An engine with a prefix cache is copied with all that has ended, to which the cache belongs, and gets no arrivals.

    Args:
        engine: between two iterations; stays as it is.
        rng: of the imagination.
        horizon_s: for how long requests go on arriving.
        sigma: log-normal error of the lengths that were predicted; None: none were.
    """
    disband(engine.core)  # which changes no result, and makes all records absolute
    so_far = engine.requests[: engine.num_arrived]
    place = so_far["place"]
    here = np.flatnonzero((place == WAITING) | (place == RUNNING))
    lengths = Lengths(so_far["generated"][place == FINISHED], so_far["generated"][here])
    present = so_far[here].copy()
    if sigma is None:
        present["output"] = lengths.draw(present["generated"], rng)
    else:
        present["output"] = lengths.told(present["generated"], present["prediction"], sigma, rng)
    if engine.core["prefix_caching"]:
        return _whole(engine, here, present["output"])
    to_come = _arrivals(engine, lengths, rng, horizon_s)
    if sigma is not None:
        noise = rng.standard_normal(len(to_come))
        to_come["prediction"] = to_come["first_prediction"] = noisy_lengths(to_come["output"], sigma, noise)
    req = np.concatenate((present, to_come))
    _cut(req, engine.num_kv_tokens)
    req["number"] = np.arange(len(req))
    return _with_requests(engine, req, here)


def _cut(req: NDArray[np.void], num_kv_tokens: int) -> None:
    """Cut imagined outputs where a request alone would fill memory, which policies that keep some free never start."""
    most = int(_MOST_MEMORY * num_kv_tokens) - req["prompt"]
    req["output"] = np.maximum(np.minimum(req["output"], most), req["generated"] + 1)


def _arrivals(engine: Engine, lengths: Lengths, rng: np.random.Generator, horizon_s: float) -> NDArray[np.void]:
    """Requests to come, in order of arrival: a stretch of those so far, begun anywhere, with lengths of their own."""
    so_far = engine.requests[: engine.num_arrived]
    known = so_far[so_far["prompt"] < int(_MOST_MEMORY * engine.num_kv_tokens)]
    span_s = engine.clock_s - float(known["arrival_s"][0]) if len(known) else 0.0
    if span_s <= 0.0 or horizon_s <= 0.0:
        return np.zeros(0, so_far.dtype)
    since_s = np.asarray(known["arrival_s"]) - known["arrival_s"][0]
    start_s = rng.random() * span_s
    offset_s = np.mod(since_s - start_s, span_s)
    order = np.argsort(offset_s, kind="stable")
    rounds = min(int(np.ceil(horizon_s / span_s)), 64)
    at_s = np.concatenate([offset_s[order] + k * span_s for k in range(rounds)])
    which = np.tile(order, rounds)[at_s < horizon_s][:MOST_ARRIVALS]
    fresh = np.zeros(len(which), so_far.dtype)
    for name in ("prompt", "slo_ttft_s", "slo_tpot_s", "tenant", "priority"):
        fresh[name] = known[name][which]
    fresh["arrival_s"] = engine.clock_s + at_s[at_s < horizon_s][:MOST_ARRIVALS]
    fresh["output"] = lengths.draw(np.zeros(len(which), np.int64), rng)
    fresh["level_place_s"] = fresh["arrival_s"]
    fresh["in_prefill"] = 1
    for name in ("last_token_s", "first_scheduled_s", "first_token_s", "finish_s"):
        fresh[name] = np.nan
    fresh["batch_slot"] = -1
    fresh["next_of_tenant"] = -1
    return fresh


def _with_requests(engine: Engine, req: NDArray[np.void], here: NDArray[np.int64]) -> Engine:
    """A copy of an engine with these requests, the first of which are those in `here`; its log is small."""
    record, arrays = _with_small_log(engine)
    leaves = power_of_two_at_least(max(len(req), 1))
    arrays["req"] = req
    arrays["tree"] = np.full(2 * leaves, -1, engine.arrays["tree"].dtype)
    arrays["valid"] = np.empty((2, 2 * leaves))
    place_of = np.full(engine.num_arrived, -1, np.int64)
    place_of[here] = np.arange(len(here))
    arrays["run"][: engine.num_running] = place_of[engine.running]
    record["num_leaves"], record["num_requests"], record["next_arrival"] = leaves, len(req), len(here)
    for name in ("num_finished", "num_rejected", "num_moved"):
        record[name] = 0
    return Engine(record, arrays)


def _whole(engine: Engine, here: NDArray[np.int64], outputs: NDArray[np.int64]) -> Engine:
    """A copy of an engine with all that has arrived, of which those in `here` have these outputs."""
    record, arrays = _with_small_log(engine)
    present = arrays["req"][here]
    present["output"] = outputs
    _cut(present, engine.num_kv_tokens)
    arrays["req"][here] = present
    record["num_requests"] = engine.num_arrived
    return Engine(record, arrays)


def _with_small_log(engine: Engine) -> tuple[NDArray[np.void], dict[str, NDArray[Any]]]:
    """Copies of the record and the arrays whose log is empty, small and without a schedule; nobody else is to come."""
    record = engine.record.copy()
    arrays = {name: array.copy() for name, array in engine.arrays.items() if name not in LOG_ARRAYS}
    arrays |= {name: np.zeros((0, *engine.arrays[name].shape[1:]), engine.arrays[name].dtype) for name in LOG_ARRAYS}
    record["gaps_size"] = size = 4 * int(record["list_size"][0]) + 512
    arrays["gaps"], arrays["gap_counts"] = np.zeros(size), np.zeros(size, np.int64)
    arrays["preempted"][0] = 0
    for name in ("num_unsent", "has_loop", "takes_from_loop"):
        record[name] = 0
    for name in ("spans_size", "num_gaps", "num_spans", "num_members", "num_victims"):
        record[name] = 0
    return record, arrays
