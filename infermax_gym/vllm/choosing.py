"""A selector at work: now and then it looks at the server and says which policy serves next."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from infermax_gym.agents.outlook import Observer, Sight
from infermax_gym.agents.selector import Chooser, Selector
from infermax_gym.baselines.observed import RECENT, Observed, rounded
from infermax_gym.vllm.columns import ARRIVAL_S, GENERATED, NUMBER, PROMPT
from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.requests import Seen
from infermax_gym.vllm.translation import as_served, obstacle

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.vllm.admission import Limits
    from infermax_gym.vllm.decisions import Decisions

_MOST_FINISHES = 1 << 16


@dataclass(frozen=True, eq=False)
class ServedSelector:
    """A selector as vLLM follows it: the one to simulate beside a server.

    Attributes:
        name: of the agent.
        selector: chooses among the experts that vLLM can follow, each as served.
        left_out: names of the others.
    """

    name: str
    selector: Selector
    left_out: tuple[str, ...]


def served_selector(name: str, selector: Selector) -> ServedSelector:
    """A selector without the experts that vLLM cannot follow.

    Raises:
        PlugInError: vLLM can follow none.
    """
    kept = [i for i, expert in enumerate(selector.experts) if obstacle(expert.base) is None]
    if not kept:
        raise PlugInError(f"infermax: agent {name}: {obstacle(selector.experts[0].base)}")
    among = selector.among(kept)
    experts = tuple(replace(expert, base=as_served(expert.base)) for expert in among.experts)
    left_out = tuple(expert.name for i, expert in enumerate(selector.experts) if i not in kept)
    return ServedSelector(name, replace(among, experts=experts), left_out)


class Choosing:
    """Changes the policy of `Decisions`: the twin of `infermax_gym.agents.selector.Selector.play`, bit for bit.

    Args:
        served: the selector.
        cost: what iterations cost.
        limits: the replica.
    """

    def __init__(self, served: ServedSelector, cost: CostModel, limits: Limits) -> None:
        self._config = limits.engine(cost)
        self._selector = served.selector
        self._observer, self._chooser = Observer(self._config), Chooser(served.selector)
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._num_arrived = 0
        self._finish_s: list[float] = []
        self._num_finished = 0
        self._outputs: list[tuple[int, int]] = []  # number and output of the latest arrivals that have finished
        self._num_generated = 0  # by those that have finished
        self._installed: tuple[int, float, float] | None = None
        self._next_s = -math.inf
        self._empty: tuple[Sight, Observed] | None = None
        self.num_looks = 0

    def arrived(self, entry: Seen) -> None:
        """A request has arrived; its queue key comes next."""
        self._recent.append((entry.arrival_s, entry.prompt))
        self._num_arrived += 1

    def finished(self, entry: Seen, clock_s: float) -> None:
        """A request has emitted its last token."""
        outputs = entry.request.num_output_tokens
        self._num_finished += 1
        self._finish_s.append(clock_s)
        if len(self._finish_s) > _MOST_FINISHES:
            del self._finish_s[: _MOST_FINISHES // 2]
        self._num_generated += outputs
        insort(self._outputs, (entry.number, outputs))
        if len(self._outputs) > RECENT:
            del self._outputs[0]

    def set_if_due(self, decisions: Decisions) -> None:
        """Choose a policy if it is time to; the first time is before anybody has come."""
        if self.num_looks == 0:
            self._choose(decisions, *self._before_anybody(decisions))
        if self._empty is not None:
            (sight, seen), self._empty = self._empty, None
            if decisions.clock_s > sight.clock_s:
                self._choose(decisions, sight, seen)
        if decisions.clock_s >= self._next_s:
            self._choose(decisions, *self._look(decisions))

    def left_alone(self, decisions: Decisions) -> None:
        """Nobody is left. What is seen counts, unless somebody has come at the same time, who is seen first."""
        if decisions.clock_s >= self._next_s:
            self._empty = self._look(decisions)

    def _choose(self, decisions: Decisions, sight: Sight, seen: Observed) -> None:
        outlook = self._observer.outlook(sight, seen)
        if not np.isfinite(outlook.features).all():
            raise FloatingPointError("a feature of the selector is no finite number")
        expert = self._chooser.choose(outlook.features)
        setting = (expert, rounded(outlook.context), rounded(outlook.output))
        if setting != self._installed:
            decisions.install(self._selector.experts[expert].resolve(self._config, *setting[1:]))
            self._installed = setting
        self._next_s = outlook.clock_s + self._selector.interval * outlook.alone_s
        self.num_looks += 1

    def _before_anybody(self, decisions: Decisions) -> tuple[Sight, Observed]:
        none = np.empty(0)
        sight = Sight(0.0, 0, none, none, none, none, none, none, 0, decisions.limits.num_blocks, 0)
        return sight, self._observer.traffic(none, 0, 0)

    def _look(self, decisions: Decisions) -> tuple[Sight, Observed]:
        clock_s, waiting, running = decisions.clock_s, decisions.queue.table, decisions.running.entries
        order = waiting[NUMBER].argsort()
        generated = self._num_generated + int(waiting[GENERATED].sum() + decisions.running.numbers().generated.sum())
        prompts = np.array([prompt for _, prompt in self._recent], np.float64)
        seen = self._observer.traffic(prompts, generated, self._num_finished)
        numbers = np.concatenate([waiting[NUMBER], [entry.number for entry in running]])
        arrivals = np.concatenate([waiting[ARRIVAL_S], [entry.arrival_s for entry in running]])
        sight = Sight(
            clock_s=clock_s,
            num_arrived=self._num_arrived,
            arrival_s=np.array([arrival_s for arrival_s, _ in self._recent], np.float64),
            outputs=np.array([outputs for _, outputs in self._outputs], np.float64),
            finish_s=np.array(self._finish_s[bisect_left(self._finish_s, clock_s - 4.0 * seen.alone_s) :], np.float64),
            waiting_arrival_s=waiting[ARRIVAL_S, order],
            waiting_prompts=waiting[PROMPT, order[:RECENT]],
            present_arrival_s=arrivals[numbers.argsort()],
            num_running=len(running),
            free_blocks=decisions.memory.free_blocks,
            num_preemptions=decisions.num_preemptions,
        )
        return sight, seen
