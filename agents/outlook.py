"""What a selector sees of an engine and its traffic: shares and ratios, which mean the same on every engine.

Seconds are counted in a mean request's time alone on the engine, tokens in what the engine holds or computes at once.
All of it is what a serving engine knows: its cost model, requests that arrived, tokens so far, requests that ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.observed import RECENT, Observed, observe, traffic
from infermax_gym.baselines.table.shares import fewest, prefill_seconds, sizes_up_to
from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.layout import FINISHED, RUNNING, WAITING

if TYPE_CHECKING:
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


@dataclass(frozen=True, eq=False)
class Outlook:
    """An engine and its traffic so far.

    Attributes:
        config: the replica.
        clock_s: now.
        features: (len(FEATURES),) float64.
        context: mean KV tokens of a decode, as far as is known.
        output: mean output in tokens, likewise.
        alone_s: seconds that a mean request would take with the engine to itself.
    """

    config: EngineConfig
    clock_s: float
    features: NDArray[np.float64]
    context: float
    output: float
    alone_s: float


@dataclass(frozen=True, eq=False)
class Sight:
    """All that is looked at on a replica; arrays in order of arrival where nothing else is said.

    Attributes:
        clock_s: now.
        num_arrived: requests so far.
        arrival_s: (at most RECENT,) of the latest arrivals.
        outputs: (at most RECENT,) output tokens of the latest arrivals among those that have finished.
        finish_s: (k,) when requests finished, in any order; what ended long ago may be left out.
        waiting_arrival_s: (waiting,) of those that wait.
        waiting_prompts: (at most RECENT,) prompt tokens of the first of them.
        present_arrival_s: (waiting + running,) of those in the system.
        num_running: requests that run.
        free_blocks: KV blocks that nobody holds.
        num_preemptions: so far.
    """

    clock_s: float
    num_arrived: int
    arrival_s: NDArray[np.float64]
    outputs: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    waiting_arrival_s: NDArray[np.float64]
    waiting_prompts: NDArray[np.float64]
    present_arrival_s: NDArray[np.float64]
    num_running: int
    free_blocks: int
    num_preemptions: int


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
        seen = observe(engine, self.config)
        req = engine.requests[: engine.num_arrived]
        place = req["place"]
        finished, waiting = place == FINISHED, place == WAITING
        sight = Sight(
            clock_s=engine.clock_s,
            num_arrived=len(req),
            arrival_s=req["arrival_s"][-RECENT:],
            outputs=req["generated"][finished][-RECENT:].astype(np.float64),
            finish_s=req["finish_s"][finished],
            waiting_arrival_s=req["arrival_s"][waiting],
            waiting_prompts=req["prompt"][waiting][:RECENT],
            present_arrival_s=req["arrival_s"][waiting | (place == RUNNING)],
            num_running=engine.num_running,
            free_blocks=engine.free_blocks,
            num_preemptions=int(engine.record["num_preemptions"][0]),
        )
        return self.outlook(sight, seen)

    def traffic(self, prompts: NDArray[np.float64], num_generated: int, num_finished: int) -> Observed:
        """`infermax_gym.baselines.observed.traffic` on this replica."""
        return traffic(self.config, prompts, num_generated, num_finished)

    def outlook(self, sight: Sight, seen: Observed) -> Outlook:
        """The features.

        Args:
            sight: of the replica.
            seen: of its traffic.
        """
        config, now_s = self.config, sight.clock_s
        alone_s, work_s, lone_s = seen.alone_s, seen.work_s, seen.lone_s
        span_s = now_s - float(sight.arrival_s[0]) if sight.num_arrived else 0.0
        load = len(sight.arrival_s) / span_s * work_s if span_s > 0.0 else 0.5
        since_s = now_s - 4.0 * alone_s
        came = float(np.count_nonzero(sight.arrival_s >= since_s))
        went = float(np.count_nonzero(sight.finish_s >= since_s))
        waits_s = now_s - sight.waiting_arrival_s
        ages_s = now_s - sight.present_arrival_s
        queue_s = float(prefill_seconds(config.cost, sight.waiting_prompts).sum())
        num_waiting, num_running, outputs = len(waits_s), sight.num_running, sight.outputs
        queue_s *= num_waiting / max(min(num_waiting, RECENT), 1)
        log_prompts = np.log(seen.prompts)
        features = np.array(
            [
                1.0,
                1.0 - sight.free_blocks / max(config.num_blocks, 1),
                np.log((num_running + 1.0) / seen.most_running),
                np.log1p(num_waiting / (num_running + 1.0)),
                float(seen.prefills_s.mean()) / work_s,
                np.log(load + 0.01),
                (came + 1.0) / (came + went + 2.0) - 0.5,
                np.log1p(float(waits_s.max(initial=0.0)) / alone_s),
                np.log1p(queue_s / alone_s),
                np.log1p(float(ages_s.mean()) / alone_s) if ages_s.size else 0.0,
                np.log(seen.output * lone_s / float(seen.prefills_s.mean())),
                float(log_prompts.std()),
                float(np.log(outputs).std()) if outputs.size > 1 else 0.8,
                np.log(float(np.quantile(seen.prefills_s, 0.9)) / lone_s),
                np.log(self._budget_s / lone_s),
                self._prefill_slack,
                np.log(seen.sizes[-1] / fewest(seen.sizes, seen.sizes_s, 0.5)),
                self._larger_budget,
                np.log(config.max_num_seqs / max(config.num_kv_tokens / max(seen.context, 1.0), 1.0)),
                np.tanh(float(sight.num_preemptions) / max(sight.num_arrived, 1)),
            ]
        )
        return Outlook(config, now_s, features, seen.context, seen.output, alone_s)
