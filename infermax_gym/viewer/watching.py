"""Policies at work, side by side on one clock: what `infermax watch` shows, without the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Policy, Session
from infermax_gym.engine.kernel.group import disband
from infermax_gym.envs.terminal import Past, View, draw, most_of, view_of
from infermax_gym.workload import Workload

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_MOMENTS = 4_000
"""So many moments are remembered; then every other one is forgotten."""


class Watched:
    """One policy's run, which is stopped now and then.

    Args:
        name: what it is called.
        workload: the requests.
        config: the engine.
        policy: decides.
        predicted: as in `simulate`.
    """

    def __init__(
        self,
        name: str,
        workload: Workload,
        config: EngineConfig,
        policy: Policy,
        predicted: NDArray[np.float64] | None = None,
    ) -> None:
        self.name = name
        self.is_over = len(workload) == 0
        self.past: list[Past] = []
        self._session = Session(workload, config, policy, predicted, asynchronous=True)
        self.view = self._look()

    @property
    def clock_s(self) -> float:
        """Where its clock stands, seconds."""
        return self._session.clock_s

    def advance(self, until_s: float) -> None:
        """Run to the first iteration end at or after a moment, seconds."""
        if not self.is_over and self.clock_s < until_s:
            self.is_over = not self._session.run(until_s)
            self._session.recorder.empty(self._session.engine)
            self.past.append(self.view.past)
            if len(self.past) > MOST_MOMENTS:
                del self.past[::2]
            self.view = self._look()

    def step(self) -> None:
        """One iteration, or the next arrival of an idle engine."""
        self.advance(math.nextafter(self.clock_s, math.inf))

    def _look(self) -> View:
        disband(self._session.engine.core)
        return view_of(self._session.engine)


def side_by_side(watched: Sequence[Watched], width: int, height: int, footer: str = "") -> RenderableType:
    """Their panels beside each other, and a line below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    each = max(width // len(watched), 40)
    grid = Table.grid(padding=0)
    tops = most_of([past for one in watched for past in (*one.past, one.view.past)])
    grid.add_row(*(draw(one.name, one.view, one.past, each, height - bool(footer), tops) for one in watched))
    return Group(grid, Text(footer, style="grey58", no_wrap=True, overflow="ellipsis")) if footer else grid
