"""A controller at kernel speed: every few simulated seconds a small network sets the knobs of the algorithm.

Between two settings the engine's own loop runs, so a controlled engine is as fast as a policy of the table. At each
setting, in this order: look (features), pick (which specialist is active), choose (one weight per knob and feature),
believe (what lengths the waiting and running requests will have), give the queue its keys anew, and preempt running
requests that rank far behind the head of the queue. Where it sheds requests that are bound to be late, it looks for
them before every iteration.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from infermax_gym.agents.controller_moves import BEHIND, push_out, rekey_from, shed_late
from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.advance import arrive
from infermax_gym.engine.kernel.group import decode_demand, emitted
from infermax_gym.engine.kernel.memory import requests, term_ends_of, theta_of
from infermax_gym.engine.kernel.run import LIMIT, jump_to_next_arrival, run
from infermax_gym.engine.kernel.serve import resume_paused
from infermax_gym.engine.layout import FINISHED, RUNNING, WAITING
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.envs.knobs.layout import KNOB_NAMES
from infermax_gym.envs.scales import squash
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES
from infermax_gym.envs.scheduling.observe import observe_engine

EXTRA_KNOBS = (
    "log_generated",  # queue key: ln(1 + generated)
    "log_remaining",  # queue key: ln(1 + believed remaining)
    "memory_time",  # queue key: believed KV tokens x iterations still needed, per million
    "overdue",  # queue key: minus the square of the seconds waited, per 30 s (positive: nobody waits for ever)
    "shed",  # above 0: who cannot meet its TTFT limit, were its prefill twice the knob as long as alone, is shed
    "class_ttft",  # queue key: the class's TTFT limit, per 2 s
    "victim_remaining",  # victim key: believed remaining tokens, per 100
    "victim_index",  # victim key: the queue key's nonlinear part (the six above but the class)
    "preempt",  # above 0: requests that rank further behind the head than a margin are preempted; 1 = any
)
CONTROLLER_KNOBS = KNOB_NAMES + EXTRA_KNOBS
"""What a controller sets, each in [-1, 1]; the first eleven are the action of `InferMaxKnobs-v0`."""

EXTRA_FEATURES = (
    "log_output",  # mean of ln(output) as believed now, over 8
    "log_output_spread",  # its standard deviation, over 2
    "arrivals_share",  # arrivals / (arrivals + finishes), smoothed over half a minute: 0.5 in balance
    "mean_prompt",  # of arrivals so far, squashed at 1,000
    "backlog",  # waiting requests, squashed at 100
    "long_wait",  # seconds since the oldest arrival, squashed at 60
    "missed_share",  # waiting requests whose TTFT limit has passed, share
    "good_share",  # finished requests that met their SLOs, share
    "context_cost",  # reading the KV of a mean prompt, over the rest of a decode's iteration, squashed at 1
)
CONTROLLER_FEATURES = ("one", *ENGINE_FEATURES, *EXTRA_FEATURES)
"""What a controller sees: a constant, the engine features of the environments, and what it keeps account of."""

NUM_KNOBS, NUM_FEATURES = len(CONTROLLER_KNOBS), len(CONTROLLER_FEATURES)
_ENGINE, _EXTRA = len(ENGINE_FEATURES), 1 + len(ENGINE_FEATURES)

ACCOUNT = np.dtype(
    [
        ("interval_s", "f8"),
        ("max_num_seqs", "i8"),  # of the engine, before any cap
        ("estimates_lengths", "i8"),  # whether lengths are believed at all
        ("sigma", "f8"),  # log-normal error of predictions; 0: there are none
        ("prior_log", "f8"),  # prior of ln(output): mean ...
        ("prior_spread", "f8"),  # ... standard deviation ...
        ("prior_weight", "f8"),  # ... worth so many finished requests
        ("group_weight", "f8"),  # a group's own figures count once it has so many
        ("first_alive", "i8"),  # all requests before it are finished or rejected
        ("arrived", "i8"),
        ("arrival_rate", "f8"),  # smoothed counts
        ("finish_rate", "f8"),
        ("last_s", "f8"),
        ("next_s", "f8"),
        ("preempts", "i8"),  # whether running requests may be preempted
        ("pace", "f8"),  # prefills are expected to take so many times as long as alone; 0: nobody is shed
        ("num_settings", "i8"),
    ],
    align=True,
)
_SMOOTHING_S = 30.0


@compiled
def expected_remaining(mean: float, spread: float, generated: float) -> Any:
    """Mean remaining tokens of a log-normal length that is known to exceed `generated`, at least 1."""
    if generated < 1.0:
        return max(math.exp(mean + 0.5 * spread * spread), 1.0)
    at = (math.log(generated) - mean) / spread
    beyond = 0.5 * math.erfc(at / math.sqrt(2.0))
    if beyond < 1e-9:
        return max(generated * spread / at, 1.0)  # the tail's asymptotic mean residual
    above = 0.5 * math.erfc((at - spread) / math.sqrt(2.0))
    return max(math.exp(mean + 0.5 * spread * spread) * above / beyond - generated, 1.0)


@inlined
def _count_finished(s: Any, c: Any, groups: Any, counted: Any, lengths: Any) -> Any:
    """Learn from the requests that finished since last time; returns how many did."""
    req = requests(s)
    count = 0
    moving = True
    for r in range(c.first_alive, s.next_arrival):
        q = req[r]
        if q.place == FINISHED and not counted[r]:
            counted[r] = 1
            count += 1
            log_output = math.log(q.output)
            for g in (0, groups[r]):
                lengths[g, 0] += 1.0
                lengths[g, 1] += log_output
                lengths[g, 2] += log_output * log_output
        moving = moving and q.place != WAITING and q.place != RUNNING
        if moving:
            c.first_alive = r + 1
    return count


@inlined
def _overall(c: Any, lengths: Any) -> Any:
    """Mean and variance of ln(output) over everything finished, drawn to the prior."""
    weight = lengths[0, 0] + c.prior_weight
    mean = (lengths[0, 1] + c.prior_weight * c.prior_log) / weight
    second = lengths[0, 2] + c.prior_weight * (c.prior_spread**2 + c.prior_log**2)
    return mean, max(second / weight - mean * mean, 0.01)


@inlined
def _group(c: Any, lengths: Any, g: int, mean: float, variance: float) -> Any:
    """Mean and variance of ln(output) in a group, drawn to those overall."""
    weight = lengths[g, 0] + c.group_weight
    own = (lengths[g, 1] + c.group_weight * mean) / weight
    second = lengths[g, 2] + c.group_weight * (variance + mean * mean)
    return own, max(second / weight - own * own, 0.01)


@compiled
def look(s: Any, v: Any, c: Any, groups: Any, counted: Any, lengths: Any, seen: Any, out: Any) -> None:
    """Features into `out` (NUM_FEATURES,) float64; `seen` (20,) float32 is scratch. Updates the account."""
    req = requests(s)
    v.demand = decode_demand(s)
    observe_engine(s, v, seen)
    finished = _count_finished(s, c, groups, counted, lengths)
    decay = math.exp(-(s.clock_s - c.last_s) / _SMOOTHING_S)
    c.arrival_rate = c.arrival_rate * decay + (s.next_arrival - c.arrived)
    c.finish_rate = c.finish_rate * decay + finished
    c.arrived = s.next_arrival
    c.last_s = s.clock_s
    out[0] = 1.0
    for i in range(_ENGINE):
        out[1 + i] = min(max(seen[i], np.float32(-1.0)), np.float32(1.0))
    mean, variance = _overall(c, lengths)
    prompts = 0.0
    missed = 0
    oldest_s = s.clock_s
    for r in range(c.first_alive, s.next_arrival):
        q = req[r]
        if q.place == WAITING:
            oldest_s = min(oldest_s, q.arrival_s)
            missed += _missed_deadline(s, q)
    for r in range(max(0, s.next_arrival - 100), s.next_arrival):
        prompts += req[r].prompt
    out[_EXTRA] = mean / 8.0
    out[_EXTRA + 1] = math.sqrt(variance) / 2.0
    out[_EXTRA + 2] = (c.arrival_rate + 1.0) / (c.arrival_rate + c.finish_rate + 2.0)
    out[_EXTRA + 3] = squash(prompts / max(min(s.next_arrival, 100), 1), 1000.0)
    out[_EXTRA + 4] = squash(s.num_waiting, 100.0)
    out[_EXTRA + 5] = squash(s.clock_s - oldest_s, 60.0)
    out[_EXTRA + 6] = missed / max(s.num_waiting, 1)
    out[_EXTRA + 7] = s.num_good / max(s.num_finished, 1)
    theta, ends, floored = theta_of(s), term_ends_of(s), s.floor_context != 0
    context = int(prompts / max(min(s.next_arrival, 100), 1))
    alone_s = batch_seconds(theta, ends, floored, 1, 0, 0, 0, 0, 1)
    out[_EXTRA + 8] = squash(batch_seconds(theta, ends, floored, 1, 0, 0, 0, context, 1) / alone_s - 1.0, 1.0)


@inlined
def _missed_deadline(s: Any, q: Any) -> Any:
    return q.slo_ttft_s > 0.0 and q.generated == 0 and s.clock_s - q.arrival_s > q.slo_ttft_s


@compiled
def choose(weights: Any, features: Any, out: Any) -> None:
    """Knobs in [-1, 1] into `out` (NUM_KNOBS,): weights (NUM_KNOBS, NUM_FEATURES) . features."""
    for k in range(out.size):
        total = 0.0
        for i in range(features.size):
            total += weights[k, i] * features[i]
        out[k] = min(max(total, -1.0), 1.0)


@compiled
def pick(inner: Any, outer: Any, features: Any) -> Any:
    """Which specialist sets the knobs: argmax of outer . (tanh(inner . features), 1); the only one without being asked.

    Args:
        inner: (hidden, NUM_FEATURES) float64.
        outer: (specialists, hidden + 1) float64.
        features: (NUM_FEATURES,) float64.
    """
    best, best_score = 0, -np.inf
    if outer.shape[0] == 1:
        return best
    hidden = np.empty(inner.shape[0])
    for h in range(hidden.size):
        total = 0.0
        for i in range(features.size):
            total += inner[h, i] * features[i]
        hidden[h] = math.tanh(total)
    for k in range(outer.shape[0]):
        score = outer[k, hidden.size]
        for h in range(hidden.size):
            score += outer[k, h] * hidden[h]
        if score > best_score:
            best, best_score = k, score
    return best


@compiled
def set_knobs(s: Any, c: Any, a: Any) -> None:
    """Knobs into the engine: the compiled twin of `infermax_gym.envs.knobs.policy_of`."""
    w = s.queue_weights
    w[0] = a[0] / 10.0
    w[1] = 0.0
    w[2] = a[1] / 1000.0
    w[3] = a[2] / 7.0
    w[4] = a[3] / 100.0
    w[5] = a[4] / 100.0
    w[6] = 1.0 if c.estimates_lengths else 0.0  # `priority` holds the key's nonlinear part
    w[7] = a[16] / 2.0
    headroom = (a[5] + 1.0) / 2.0
    s.headroom_tokens = 1000.0 * headroom**3
    max_num_seqs = int(round(float(c.max_num_seqs) ** ((a[6] + 1.0) / 2.0)))
    s.max_num_seqs = min(max(1, max_num_seqs), s.list_size - 1)
    s.prefill_share = 0.05 + 0.95 * ((a[7] + 1.0) / 2.0)
    u = s.victim_weights
    u[2] = a[8] / 1000.0
    u[4] = a[9] / 100.0
    u[0] = a[10] / 10.0
    u[5] = a[17] / 100.0
    u[6] = a[18] if c.estimates_lengths else 0.0


@inlined
def _estimate_length(
    s: Any, c: Any, a: Any, q: Any, shed: int, predicted_lengths: float, mean: float, variance: float
) -> None:
    """What is left of a request as believed, and the nonlinear part of its key."""
    if c.sigma > 0.0 and predicted_lengths > 0.0:
        precision = 1.0 / variance + 1.0 / c.sigma**2
        mean = (mean / variance + (math.log(predicted_lengths) + 0.5 * c.sigma**2) / c.sigma**2) / precision
        variance = 1.0 / precision
    generated = emitted(s, q)
    rest = expected_remaining(mean, math.sqrt(variance), generated)
    q.prediction = generated + rest
    known = q.prompt + generated
    index = a[11] * math.log(1.0 + generated) + a[12] * math.log(1.0 + rest) + a[13] * rest * (known + 0.5 * rest) / 1e6
    if q.place != RUNNING:
        index -= a[14] * (max(s.clock_s - q.arrival_s, 0.0) / 30.0) ** 2
    q.priority = index + (BEHIND if shed and a[15] > 0.0 else 0.0)


@compiled
def estimate_lengths(s: Any, c: Any, a: Any, groups: Any, predicted_lengths: Any, shed: Any, lengths: Any) -> None:
    """Beliefs about every request that waits, runs, or will arrive before the next setting."""
    req = requests(s)
    mean, variance = _overall(c, lengths)
    soon_s = s.clock_s + c.interval_s + 2.0
    for r in range(c.first_alive, s.num_requests):
        q = req[r]
        if r >= s.next_arrival and q.arrival_s > soon_s:
            break
        if r >= s.next_arrival or q.place == WAITING or q.place == RUNNING:
            if shed[r] and emitted(s, q) > 0 and q.first_token_s <= q.arrival_s + q.slo_ttft_s:
                shed[r] = 0  # it was faster than expected
            own, spread = _group(c, lengths, groups[r], mean, variance)
            _estimate_length(s, c, a, q, shed[r], predicted_lengths[r], own, spread)


@compiled
def set_engine(
    s: Any,
    v: Any,
    c: Any,
    weights: Any,
    inner: Any,
    outer: Any,
    groups: Any,
    predicted_lengths: Any,
    counted: Any,
    shed: Any,
    lengths: Any,
    log: Any,
) -> None:
    """One setting of the controller."""
    features = np.empty(NUM_FEATURES)
    knobs = np.empty(NUM_KNOBS)
    look(s, v, c, groups, counted, lengths, np.empty(_ENGINE, np.float32), features)
    specialist = pick(inner, outer, features)
    choose(weights[specialist], features, knobs)
    set_knobs(s, c, knobs)
    if c.estimates_lengths:
        estimate_lengths(s, c, knobs, groups, predicted_lengths, shed, lengths)
        if c.pace > 0.0:
            resume_paused(s)
        c.pace = max(2.0 * knobs[15], 0.0)
    rekey_from(s, c.first_alive)
    if c.num_settings < log.shape[0]:
        log[c.num_settings, 0] = specialist
        log[c.num_settings, 1 : 1 + NUM_KNOBS] = knobs
        log[c.num_settings, 1 + NUM_KNOBS :] = features
    c.preempts = knobs[19] > 0.0
    if c.preempts:
        push_out(s, 50.0 * 0.001 ** knobs[19])
    c.num_settings += 1
    c.next_s = s.clock_s + c.interval_s


@inlined
def _limit(s: Any, c: Any) -> Any:
    """How far to run: to the next setting, or to where somebody may have to be shed."""
    if c.pace <= 0.0:
        return NO_LIMIT, c.next_s
    if s.num_waiting > 0:
        return 1, c.next_s
    next_arrival_s = requests(s)[s.next_arrival].arrival_s if s.next_arrival < s.num_requests else np.inf
    return NO_LIMIT, min(c.next_s, next_arrival_s)


@compiled
def control(
    engines: Any,
    lanes: Any,
    accounts: Any,
    weights: Any,
    inner: Any,
    outer: Any,
    groups: Any,
    predicted_lengths: Any,
    counted: Any,
    shed: Any,
    lengths: Any,
    log: Any,
) -> Any:
    """Run until every request is finished (DONE) or the log is full (LOG_FULL): call again.

    Args:
        engines: (1,) CORE.
        lanes: (1,) LANE.
        accounts: (1,) ACCOUNT.
        weights: (specialists, NUM_KNOBS, NUM_FEATURES) float64.
        inner: of the gate, see `pick`.
        outer: of the gate, see `pick`.
        groups: (n,) int64, which requests are expected to be of a kind, from 1.
        predicted_lengths: (n,) float64 predicted output tokens, 0 where there is no prediction.
        counted: (n,) int8, whether a finished request has been learned from.
        shed: (n,) int8, whether a request has been shed.
        lengths: (number of groups + 1, 3) float64: count, sum and sum of squares of ln(output); policy 0 is everybody.
        log: (settings, 1 + NUM_KNOBS + NUM_FEATURES) float64, gets specialist, knobs and features of the first
            settings.
    """
    s = engines[0]
    v = lanes[0]
    c = accounts[0]
    if c.num_settings == 0:
        arrive(s)
        while s.num_waiting == 0 and s.num_rejected < s.num_requests:
            jump_to_next_arrival(s)
            arrive(s)
        set_engine(s, v, c, weights, inner, outer, groups, predicted_lengths, counted, shed, lengths, log)
    while True:
        if c.pace > 0.0:
            shed_late(s, c.pace, c.preempts != 0, shed)
        most, until_s = _limit(s, c)
        code = run(s, most, until_s, True)
        if code != LIMIT:
            return code
        if s.clock_s >= c.next_s:
            set_engine(s, v, c, weights, inner, outer, groups, predicted_lengths, counted, shed, lengths, log)
