"""Selectors: a small network that says, now and then, which of a few policies serves next.

The policies (experts) are settings of the scheduling algorithm whose sizes are shares (`baselines.table.shares`), and
what the network sees are shares and ratios (`agents.outlook`), so that one selector serves any engine. Policies that
engines ship are among the experts: where nothing else is sure to be better, the selector stays with one of those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.outlook import FEATURES, Observer, Outlook
from infermax_gym.baselines.observed import rounded
from infermax_gym.baselines.table.shares import Shares
from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.policy import Information

if TYPE_CHECKING:
    from infermax_gym.engine import SimulationResult
    from infermax_gym.workload import Workload

Watch = Callable[[Outlook, int], None]
"""Called at each decision with what is seen and the expert chosen."""


@dataclass(frozen=True, eq=False)
class Selector:
    """A choice between experts, made anew at intervals that follow the traffic.

    Attributes:
        experts: what may serve.
        inner: (hidden, features) float64, of tanh units.
        outer: (experts, hidden + 1) float64; the largest of outer . (tanh(inner . features), 1) is chosen.
        interval: between two choices, in times that a mean request takes alone.
        memory: weight of the scores so far when new ones come, in [0, 1).
        margin: by how much the score of another expert must exceed the current one's.

    Raises:
        ValueError: there is no expert, one needs predicted lengths, or the weights do not fit.
    """

    experts: tuple[Shares, ...]
    inner: NDArray[np.float64]
    outer: NDArray[np.float64]
    interval: float = 1.0
    memory: float = 0.5
    margin: float = 0.0

    def __post_init__(self) -> None:
        inner, outer = (np.ascontiguousarray(part, np.float64) for part in (self.inner, self.outer))
        if not self.experts or any(expert.information > Information.BOUND for expert in self.experts):
            raise ValueError("a selector has experts, none of which needs predicted lengths")
        shape = (len(self.experts), len(inner) + 1)
        if inner.ndim != 2 or inner.shape[1] != len(FEATURES) or outer.shape != shape:
            raise ValueError(f"a selector has (hidden, {len(FEATURES)}) and (experts, hidden + 1) weights")
        if not (np.isfinite(inner).all() and np.isfinite(outer).all()):
            raise ValueError("a selector has finite weights")
        if not (0.0 < self.interval < np.inf and 0.0 <= self.memory < 1.0 and 0.0 <= self.margin < np.inf):
            raise ValueError("a selector has a positive interval, a memory in [0, 1) and a margin of at least 0")
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "outer", outer)

    @property
    def information(self) -> Information:
        """The most that an expert knows about output lengths."""
        return max(expert.information for expert in self.experts)

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(experts,) scores; the largest is chosen."""
        hidden = np.tanh(self.inner @ np.clip(features, -10.0, 10.0))
        return np.asarray(self.outer @ np.append(hidden, 1.0))

    def among(self, kept: Sequence[int]) -> Selector:
        """The same choice between some of the experts, by their places.

        Raises:
            ValueError: none is left.
        """
        return replace(self, experts=tuple(self.experts[i] for i in kept), outer=self.outer[list(kept)])

    def play(
        self,
        workload: Workload,
        engine: EngineConfig,
        *,
        record_schedule: bool = False,
        watch: Watch | None = None,
    ) -> SimulationResult:
        """Serve a workload to its end.

        Args:
            workload: the requests.
            engine: the replica.
            record_schedule: keep every iteration.
            watch: sees every decision.
        """
        from infermax_gym.engine.session import Session

        observer = Observer(engine)
        session = Session(workload, engine, self.experts[0].resolve(engine), record_schedule=record_schedule)
        chooser = Chooser(self)
        installed: tuple[int, float, float] | None = None
        more = True
        while more:
            outlook = observer.look(session.engine)
            expert = chooser.choose(outlook.features)
            if watch is not None:
                watch(outlook, expert)
            setting = (expert, rounded(outlook.context), rounded(outlook.output))
            if setting != installed:
                session.install(self.experts[expert].resolve(engine, *setting[1:]))
                installed = setting
            more = session.run(session.clock_s + self.interval * outlook.alone_s)
        return session.result()


class Chooser:
    """The choices of a selector along one run."""

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self.scores: NDArray[np.float64] | None = None
        self.current: int | None = None

    def choose(self, features: NDArray[np.float64]) -> int:
        """The expert that serves next."""
        new = self.selector.scores(features)
        memory = self.selector.memory
        self.scores = new if self.scores is None else memory * self.scores + (1.0 - memory) * new
        best = int(np.argmax(self.scores))
        if self.current is None or self.scores[best] > self.scores[self.current] + self.selector.margin:
            self.current = best
        return self.current
