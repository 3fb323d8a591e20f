"""What a selector sees of an engine and its traffic: shares and ratios, which mean the same on every engine.

Seconds are counted in a mean request's time alone on the engine, tokens in what the engine holds or computes at once.
All of it is what a serving engine knows: its cost model, requests that arrived, tokens so far, requests that ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.table.shares import decode_seconds, fewest, prefill_seconds, sizes_up_to
from infermax_gym.engine import EngineConfig
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.layout import FINISHED, RUNNING, WAITING
from infermax_gym.engine.state import Engine

FEATURES = (
    "one",
    "kv_used",  # KV blocks held, share
    "running",  # running requests over the most that fit, logarithm
    "queue",  # waiting over running requests, logarithm
    "prefill_share",  # of the work of a mean request at the engine's best throughput: prefill over all
    "load",  # arrival rate times that work, logarithm
    "balance",  # arrivals over arrivals and finishes, recently
    "oldest_wait",  # of those waiting, in times alone, logarithm
    "queue_work",  # prefill seconds of those waiting, in times alone, logarithm
    "in_system",  # seconds since arrival of those in the system, mean, in times alone, logarithm
    "decode_over_prefill",  # of a mean request alone: seconds of its decodes over its prefill, logarithm
    "prompt_spread",  # standard deviation of ln(prompt)
    "output_spread",  # standard deviation of ln(output) of finished requests
    "long_prefill",  # the longest tenth's prefill over an iteration of a lone decode, logarithm
    "budget_seconds",  # a full budget of prefill over an iteration of a lone decode, logarithm
    "prefill_slack",  # the engine's budget over the tokens that keep 90 % of prefill throughput, logarithm
    "decode_slack",  # the most decodes that fit over those that keep half of decode throughput, logarithm
    "larger_budget",  # what four times the budget would add to prefill throughput, logarithm
    "memory_bound",  # most running requests by sequences over those by memory, logarithm
    "preemptions",  # preemptions per arrival, squashed
)
"""What a selector sees, in order."""

_RECENT = 256
_FIRST_GUESS_TOKENS = 256.0


@dataclass(frozen=True, eq=False)
class Outlook:
    """An engine and its traffic so far.

    Attributes:
        config: the replica.
        clock_s: now.
        features: (len(FEATURES),) float64.
        context: mean KV tokens of a decode, as far as is known.
        alone_s: seconds that a mean request would take with the engine to itself.
    """

    config: EngineConfig
    clock_s: float
    features: NDArray[np.float64]
    context: float
    alone_s: float


class Observer:
    """Looks at one replica, at any time of its run."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        budgets = np.array([config.max_num_batched_tokens, 4 * config.max_num_batched_tokens], np.float64)
        rates = budgets / prefill_seconds(config.cost, budgets)
        self._larger_budget = float(np.log(rates[1] / rates[0]))
        self._budget_s = float(prefill_seconds(config.cost, budgets[:1])[0])

    @cached_property
    def _prefill_slack(self) -> float:
        sizes = sizes_up_to(self.config.max_num_batched_tokens)
        return float(np.log(sizes[-1] / fewest(sizes, prefill_seconds(self.config.cost, sizes), 0.9)))

    def look(self, engine: Engine) -> Outlook:
        """What is to be seen now; changes nothing that a schedule depends on."""
        disband(engine.core)
        config, now_s, cost = self.config, engine.clock_s, self.config.cost
        count = engine.num_arrived
        req = engine.requests[:count]
        place = req["place"]
        finished, waiting, running = place == FINISHED, place == WAITING, place == RUNNING
        recent = req[-_RECENT:]
        prompts = recent["prompt"].astype(np.float64) if count else np.array([1000.0])
        outputs = req["generated"][finished][-_RECENT:].astype(np.float64)
        generated = float(req["generated"].sum())
        # Tokens so far over requests that ended: who has not ended counts with what it has.
        output = (generated + _FIRST_GUESS_TOKENS) / (len(np.flatnonzero(finished)) + 1.0)
        context = float(prompts.mean()) + 0.5 * output
        most_by_memory = max(config.num_kv_tokens / max(context, 1.0), 1.0)
        most = max(min(most_by_memory, float(config.max_num_seqs)), 1.0)
        sizes = sizes_up_to(most)
        seconds = decode_seconds(cost, sizes, context)
        rates = sizes / seconds
        lone_s = float(seconds[0])
        prefills_s = prefill_seconds(cost, np.minimum(prompts, 200_000.0))
        prefill_mean_s = float(prefills_s.mean())
        work_s = prefill_mean_s + output / float(rates.max())
        alone_s = prefill_mean_s + output * lone_s
        span_s = now_s - float(recent["arrival_s"][0]) if count else 0.0
        load = len(recent) / span_s * work_s if span_s > 0.0 else 0.5
        since_s = now_s - 4.0 * alone_s
        came = float(np.count_nonzero(recent["arrival_s"] >= since_s)) if count else 0.0
        went = float(np.count_nonzero(req["finish_s"][finished] >= since_s))
        present = waiting | running
        waits_s = now_s - req["arrival_s"][waiting]
        ages_s = now_s - req["arrival_s"][present]
        queue_s = float(prefill_seconds(cost, req["prompt"][waiting][:_RECENT].astype(np.float64)).sum()) if waits_s.size else 0.0
        num_waiting, num_running = engine.num_waiting, engine.num_running
        queue_s *= num_waiting / max(min(num_waiting, _RECENT), 1)
        log_prompts = np.log(prompts)
        features = np.array(
            [
                1.0,
                1.0 - engine.free_blocks / max(config.num_blocks, 1),
                np.log((num_running + 1.0) / most),
                np.log1p(num_waiting / (num_running + 1.0)),
                prefill_mean_s / work_s,
                np.log(load + 0.01),
                (came + 1.0) / (came + went + 2.0) - 0.5,
                np.log1p(float(waits_s.max(initial=0.0)) / alone_s),
                np.log1p(queue_s / alone_s),
                np.log1p(float(ages_s.mean()) / alone_s) if ages_s.size else 0.0,
                np.log(output * lone_s / prefill_mean_s),
                float(log_prompts.std()),
                float(np.log(outputs).std()) if outputs.size > 1 else 0.8,
                np.log(float(np.quantile(prefills_s, 0.9)) / lone_s),
                np.log(self._budget_s / lone_s),
                self._prefill_slack,
                np.log(sizes[-1] / fewest(sizes, seconds, 0.5)),
                self._larger_budget,
                np.log(config.max_num_seqs / most_by_memory),
                np.tanh(float(engine.record["num_preemptions"][0]) / max(count, 1)),
            ]
        )
        return Outlook(config, now_s, features, context, alone_s)

