"""A controller at kernel speed: every few simulated seconds a small network sets the knobs of the algorithm.

Between two settings the engine's own loop runs, so a controlled engine is as fast as a policy of the table. At each
setting, in this order: look (features), pick (which specialist is active), choose (one weight per knob and feature),
estimate (output lengths of the waiting and running requests), give the queue its keys anew, and preempt running
requests that rank far behind the head of the queue. Where it sheds requests that will miss their deadline, it looks
for them before every iteration.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from infermax_gym.agents.controller_layout import (
    COUNT,
    FEATURE_ARRIVALS_SHARE,
    FEATURE_BACKLOG,
    FEATURE_CONTEXT_COST,
    FEATURE_GOOD_SHARE,
    FEATURE_LOG_OUTPUT,
    FEATURE_LOG_OUTPUT_SPREAD,
    FEATURE_LONG_WAIT,
    FEATURE_MEAN_PROMPT,
    FEATURE_MISSED_SHARE,
    FEATURE_ONE,
    KNOB_AGING,
    KNOB_CLASS_TTFT,
    KNOB_GENERATED_TOKENS,
    KNOB_HEADROOM,
    KNOB_KNOWN_TOKENS,
    KNOB_LOG_GENERATED,
    KNOB_LOG_KNOWN_TOKENS,
    KNOB_LOG_REMAINING,
    KNOB_MAX_RUNNING,
    KNOB_MEMORY_TIME,
    KNOB_OVERDUE,
    KNOB_PREDICTED_REMAINING,
    KNOB_PREEMPT,
    KNOB_PREFILL_SHARE,
    KNOB_SHED,
    KNOB_VICTIM_ARRIVAL,
    KNOB_VICTIM_GENERATED,
    KNOB_VICTIM_INDEX,
    KNOB_VICTIM_PROCESSED,
    KNOB_VICTIM_REMAINING,
    NUM_ENGINE_FEATURES,
    NUM_FEATURES,
    NUM_KNOBS,
    QUEUE_ARRIVAL_S,
    QUEUE_LOG_KNOWN_TOKENS,
    QUEUE_NUM_GENERATED_TOKENS,
    QUEUE_NUM_KNOWN_TOKENS,
    QUEUE_NUM_PROMPT_TOKENS,
    QUEUE_PREDICTED_REMAINING_TOKENS,
    QUEUE_PRIORITY,
    QUEUE_SLO_TTFT_S,
    SUM,
    SUM_OF_SQUARES,
    VICTIM_ARRIVAL_S,
    VICTIM_NUM_GENERATED_TOKENS,
    VICTIM_NUM_PROCESSED_TOKENS,
    VICTIM_PREDICTED_REMAINING_TOKENS,
    VICTIM_PRIORITY,
)
from infermax_gym.agents.controller_moves import BEHIND, preempt_behind_head, rekey_from, shed_late
from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.advance import arrive
from infermax_gym.engine.kernel.closed_loop import next_arrival_s
from infermax_gym.engine.kernel.group import decode_demand, emitted
from infermax_gym.engine.kernel.memory import links_of, requests, term_ends_of, theta_of, unsent_of
from infermax_gym.engine.kernel.run import LIMIT, jump_to_next_arrival, run
from infermax_gym.engine.kernel.serve import resume_paused
from infermax_gym.engine.layout import FINISHED, RUNNING, WAITING
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.envs.scales import squash
from infermax_gym.envs.scheduling.observe import observe_engine

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
def _count_finished(s: Any, c: Any, observed: Any) -> Any:
    """Learn from the requests that finished since last time; returns how many did."""
    req = requests(s)
    count = 0
    moving = True
    for r in range(c.first_alive, s.next_arrival):
        q = req[r]
        if q.place == FINISHED and not observed.counted[r]:
            observed.counted[r] = 1
            count += 1
            log_output = math.log(q.output)
            for g in (0, observed.groups[q.number]):
                observed.totals[g, COUNT] += 1.0
                observed.totals[g, SUM] += log_output
                observed.totals[g, SUM_OF_SQUARES] += log_output * log_output
        moving = moving and q.place != WAITING and q.place != RUNNING
        if moving:
            c.first_alive = r + 1
    return count


@inlined
def _overall(c: Any, totals: Any) -> Any:
    """Mean and variance of ln(output) over everything finished, drawn to the prior."""
    weight = totals[0, COUNT] + c.prior_weight
    mean = (totals[0, SUM] + c.prior_weight * c.prior_log) / weight
    second = totals[0, SUM_OF_SQUARES] + c.prior_weight * (c.prior_spread**2 + c.prior_log**2)
    return mean, max(second / weight - mean * mean, 0.01)


@inlined
def _group(c: Any, totals: Any, g: int, mean: float, variance: float) -> Any:
    """Mean and variance of ln(output) in a group, drawn to those overall."""
    weight = totals[g, COUNT] + c.group_weight
    own = (totals[g, SUM] + c.group_weight * mean) / weight
    second = totals[g, SUM_OF_SQUARES] + c.group_weight * (variance + mean * mean)
    return own, max(second / weight - own * own, 0.01)


@compiled
def look(s: Any, v: Any, c: Any, observed: Any, seen: Any, out: Any) -> None:
    """Features into `out` (NUM_FEATURES,) float64; `seen` (NUM_ENGINE_FEATURES,) float32 is scratch.

    Updates the account, and what is observed of the requests that have finished.
    """
    req = requests(s)
    v.demand = decode_demand(s)
    observe_engine(s, v, seen)
    finished = _count_finished(s, c, observed)
    decay = math.exp(-(s.clock_s - c.last_s) / _SMOOTHING_S)
    c.arrival_rate = c.arrival_rate * decay + (s.next_arrival - c.arrived)
    c.finish_rate = c.finish_rate * decay + finished
    c.arrived = s.next_arrival
    c.last_s = s.clock_s
    out[FEATURE_ONE] = 1.0
    for i in range(NUM_ENGINE_FEATURES):
        out[1 + i] = min(max(seen[i], np.float32(-1.0)), np.float32(1.0))
    mean, variance = _overall(c, observed.totals)
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
    out[FEATURE_LOG_OUTPUT] = mean / 8.0
    out[FEATURE_LOG_OUTPUT_SPREAD] = math.sqrt(variance) / 2.0
    out[FEATURE_ARRIVALS_SHARE] = (c.arrival_rate + 1.0) / (c.arrival_rate + c.finish_rate + 2.0)
    out[FEATURE_MEAN_PROMPT] = squash(prompts / max(min(s.next_arrival, 100), 1), 1000.0)
    out[FEATURE_BACKLOG] = squash(s.num_waiting, 100.0)
    out[FEATURE_LONG_WAIT] = squash(s.clock_s - oldest_s, 60.0)
    out[FEATURE_MISSED_SHARE] = missed / max(s.num_waiting, 1)
    out[FEATURE_GOOD_SHARE] = s.num_good / max(s.num_finished, 1)
    theta, ends, floored = theta_of(s), term_ends_of(s), s.floor_context != 0
    context = int(prompts / max(min(s.next_arrival, 100), 1))
    alone_s = batch_seconds(theta, ends, floored, 1, 0, 0, 0, 0, 1)
    out[FEATURE_CONTEXT_COST] = squash(batch_seconds(theta, ends, floored, 1, 0, 0, 0, context, 1) / alone_s - 1.0, 1.0)


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
    w[QUEUE_ARRIVAL_S] = a[KNOB_AGING] / 10.0
    w[QUEUE_NUM_PROMPT_TOKENS] = 0.0
    w[QUEUE_NUM_KNOWN_TOKENS] = a[KNOB_KNOWN_TOKENS] / 1000.0
    w[QUEUE_LOG_KNOWN_TOKENS] = a[KNOB_LOG_KNOWN_TOKENS] / 7.0
    w[QUEUE_NUM_GENERATED_TOKENS] = a[KNOB_GENERATED_TOKENS] / 100.0
    w[QUEUE_PREDICTED_REMAINING_TOKENS] = a[KNOB_PREDICTED_REMAINING] / 100.0
    w[QUEUE_PRIORITY] = 1.0 if c.estimates_lengths else 0.0  # `priority` holds the key's nonlinear part
    w[QUEUE_SLO_TTFT_S] = a[KNOB_CLASS_TTFT] / 2.0
    headroom = (a[KNOB_HEADROOM] + 1.0) / 2.0
    s.headroom_tokens = 1000.0 * headroom**3
    max_num_seqs = int(round(float(c.max_num_seqs) ** ((a[KNOB_MAX_RUNNING] + 1.0) / 2.0)))
    s.max_num_seqs = min(max(1, max_num_seqs), s.list_size - 1)
    s.prefill_share = 0.05 + 0.95 * ((a[KNOB_PREFILL_SHARE] + 1.0) / 2.0)
    u = s.victim_weights
    u[VICTIM_NUM_PROCESSED_TOKENS] = a[KNOB_VICTIM_PROCESSED] / 1000.0
    u[VICTIM_NUM_GENERATED_TOKENS] = a[KNOB_VICTIM_GENERATED] / 100.0
    u[VICTIM_ARRIVAL_S] = a[KNOB_VICTIM_ARRIVAL] / 10.0
    u[VICTIM_PREDICTED_REMAINING_TOKENS] = a[KNOB_VICTIM_REMAINING] / 100.0
    u[VICTIM_PRIORITY] = a[KNOB_VICTIM_INDEX] if c.estimates_lengths else 0.0


@inlined
def _estimate_length(s: Any, c: Any, a: Any, q: Any, shed: int, predicted: float, mean: float, variance: float) -> None:
    """Estimate the output length of a request, and set the nonlinear part of its key."""
    if c.sigma > 0.0 and predicted > 0.0:
        precision = 1.0 / variance + 1.0 / c.sigma**2
        mean = (mean / variance + (math.log(predicted) + 0.5 * c.sigma**2) / c.sigma**2) / precision
        variance = 1.0 / precision
    generated = emitted(s, q)
    rest = expected_remaining(mean, math.sqrt(variance), generated)
    q.prediction = generated + rest
    known = q.prompt + generated
    kv_tokens_time = a[KNOB_MEMORY_TIME] * rest * (known + 0.5 * rest) / 1e6
    index = a[KNOB_LOG_GENERATED] * math.log(1.0 + generated) + a[KNOB_LOG_REMAINING] * math.log(1.0 + rest)
    index += kv_tokens_time
    if q.place != RUNNING:
        index -= a[KNOB_OVERDUE] * (max(s.clock_s - q.arrival_s, 0.0) / 30.0) ** 2
    q.priority = index + (BEHIND if shed and a[KNOB_SHED] > 0.0 else 0.0)


@compiled
def _estimate_unsent(s: Any, c: Any, a: Any, observed: Any, mean: float, variance: float) -> None:
    """Estimate the length of every request that may be sent before the next setting, as if it came now."""
    links = links_of(s)
    unsent = unsent_of(s)
    for r in range(s.num_links):
        if links[r].slot < 0:
            q = unsent[r]
            q.arrival_s = s.clock_s
            own, spread = _group(c, observed.totals, observed.groups[r], mean, variance)
            _estimate_length(s, c, a, q, 0, observed.predicted[r], own, spread)


@compiled
def estimate_lengths(s: Any, c: Any, a: Any, observed: Any) -> None:
    """Estimate the length of every request that waits, runs, or will arrive before the next setting."""
    req = requests(s)
    shed = observed.shed
    mean, variance = _overall(c, observed.totals)
    soon_s = s.clock_s + c.interval_s + 2.0
    for r in range(c.first_alive, s.num_requests):
        q = req[r]
        if r >= s.next_arrival and q.arrival_s > soon_s:
            break
        if r >= s.next_arrival or q.place == WAITING or q.place == RUNNING:
            if shed[r] and emitted(s, q) > 0 and q.first_token_s <= q.arrival_s + q.slo_ttft_s:
                shed[r] = 0  # it was faster than expected
            own, spread = _group(c, observed.totals, observed.groups[q.number], mean, variance)
            _estimate_length(s, c, a, q, shed[r], observed.predicted[q.number], own, spread)
    if s.takes_from_loop:
        _estimate_unsent(s, c, a, observed, mean, variance)


@compiled
def set_engine(s: Any, v: Any, c: Any, specialists: Any, observed: Any, log: Any) -> None:
    """One setting of the controller."""
    features = np.empty(NUM_FEATURES)
    knobs = np.empty(NUM_KNOBS)
    look(s, v, c, observed, np.empty(NUM_ENGINE_FEATURES, np.float32), features)
    active = pick(specialists.inner, specialists.outer, features)
    choose(specialists.weights[active], features, knobs)
    set_knobs(s, c, knobs)
    if c.estimates_lengths:
        estimate_lengths(s, c, knobs, observed)
        if c.pace > 0.0:
            resume_paused(s)
        c.pace = max(2.0 * knobs[KNOB_SHED], 0.0)
    rekey_from(s, c.first_alive)
    if c.num_settings < log.shape[0]:
        log[c.num_settings, 0] = active
        log[c.num_settings, 1 : 1 + NUM_KNOBS] = knobs
        log[c.num_settings, 1 + NUM_KNOBS :] = features
    c.preempts = knobs[KNOB_PREEMPT] > 0.0
    if c.preempts:
        preempt_behind_head(s, 50.0 * 0.001 ** knobs[KNOB_PREEMPT])
    c.num_settings += 1
    c.next_s = s.clock_s + c.interval_s


@inlined
def _limit(s: Any, c: Any) -> Any:
    """How far to run: to the next setting, or to where somebody may have to be shed."""
    if c.pace <= 0.0:
        return NO_LIMIT, c.next_s
    if s.num_waiting > 0:
        return 1, c.next_s
    return NO_LIMIT, min(c.next_s, next_arrival_s(s))


@compiled
def control(engines: Any, lanes: Any, accounts: Any, specialists: Any, observed: Any, log: Any) -> Any:
    """Run until every request is finished (DONE) or the engine's log is full (LOG_FULL): call again.

    Args:
        engines: (1,) CORE.
        lanes: (1,) LANE.
        accounts: (1,) ACCOUNT.
        specialists: a `Specialists`.
        observed: an `Observed`, kept up to date.
        log: (settings, 1 + NUM_KNOBS + NUM_FEATURES) float64, gets the active specialist, knobs and features of the
            first settings.
    """
    s = engines[0]
    v = lanes[0]
    c = accounts[0]
    if c.num_settings == 0:
        arrive(s)
        while s.num_waiting == 0 and s.num_rejected < s.num_requests + s.num_unsent:
            jump_to_next_arrival(s)
            arrive(s)
        set_engine(s, v, c, specialists, observed, log)
    while True:
        if c.pace > 0.0:
            shed_late(s, c.pace, c.preempts != 0, observed.shed)
        most, until_s = _limit(s, c)
        code = run(s, most, until_s, True)
        if code != LIMIT:
            return code
        if s.clock_s >= c.next_s:
            set_engine(s, v, c, specialists, observed, log)
