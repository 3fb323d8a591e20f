"""How the lanes of a vector environment came to stand where they stand, in a form that runs no code and cannot lie.

An engine's state is memory that compiled code trusts, so it is never read from a file. What is kept instead is where
the random streams stood before each lane's episode was drawn, and the actions taken in it since: the episode is drawn
and played once more, and ends up in the same place, to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.envs.draws import Streams
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv, State
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv

_STREAMS = ("workload", "predictor")
_WORD = 1 << 128


class LaneHistory:
    """The beginning of every lane's episode and the actions since.

    Attributes:
        before: (n) streams before the episode was drawn; None while that is not known.
        actions: (n) lists of the actions since.
    """

    def __init__(self, before: Sequence[Streams] = (), actions: Sequence[list[int]] = ()) -> None:
        self.before: list[Streams | None] = list(before)
        self.actions: list[list[int]] = list(actions)
        self._next: list[Streams] = []

    def begin(self, before: Sequence[Streams], lanes: InferMaxVectorEnv, plain: bool) -> None:
        """All lanes have been reset.

        Args:
            before: copies of their streams before that; empty where there were none.
            lanes: after it.
            plain: whether without options, so that the streams alone say what was drawn.
        """
        now = lanes.streams()
        seeded = [Streams(streams.seed) for streams in now]
        self.before = [*(before or seeded)] if plain else [None] * len(now)
        self.actions = [[] for _ in now]
        self._next = now

    def note(self, actions: NDArray[np.int64], ended: Sequence[int], lanes: InferMaxVectorEnv) -> None:
        """One action in every lane has been taken; in those that `ended` the next episode has been drawn."""
        for log, action in zip(self.actions, actions.tolist(), strict=True):
            log.append(action)
        if len(ended):
            now = lanes.streams()
            for i in ended:
                self.before[i], self._next[i], self.actions[i] = self._next[i], now[i], []

    def replayed(self, config: EnvConfig) -> list[State]:
        """The states that the lanes stood in, for `set_state`.

        Raises:
            ValueError: an action is no action of this environment, or an episode was over before the last one.
        """
        env = InferMaxEnv(config, flat=True, metrics=False)
        env.reset(seed=0)
        states = []
        for streams, actions in zip(self.before, self.actions, strict=True):
            if streams is None:
                raise ValueError("an episode was begun with options, which a checkpoint does not hold")
            blank = env.get_state()
            env.set_state(State(blank.run, streams, blank.interface))
            env.reset()
            for action in actions:
                if env.step(action)[2]:
                    raise ValueError("an episode of it ends too early here; it was made by another version")
            states.append(env.get_state())
        return states

    def as_json(self) -> list[dict[str, Any]]:
        """The streams, as plain numbers.

        Raises:
            ValueError: as `replayed`.
        """
        if any(streams is None for streams in self.before):
            raise ValueError("an episode was begun with options, which a checkpoint does not hold")
        return [
            {"seed": one.seed, **{name: getattr(one, name).bit_generator.state for name in _STREAMS}}
            for one in self.before
            if one is not None
        ]

    def resumed(self, lanes: InferMaxVectorEnv) -> LaneHistory:
        """This history, to go on with: the lanes have been set to `replayed` states."""
        history = LaneHistory()
        history.before, history.actions, history._next = list(self.before), list(self.actions), lanes.streams()
        return history


def history_of(streams: Any, lengths: Any, actions: NDArray[np.int64]) -> LaneHistory:
    """A history from a file.

    Args:
        streams: what `as_json` returned.
        lengths: actions of each lane.
        actions: of all lanes, one after another.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(streams, list) or not isinstance(lengths, list) or len(streams) != len(lengths):
        raise ValueError("its lanes and their actions do not match")
    if not all(isinstance(n, int) and n >= 0 for n in lengths) or sum(lengths) != len(actions):
        raise ValueError("the numbers of actions do not match")
    edges = np.cumsum([0, *lengths])
    parts = [actions[a:b].tolist() for a, b in pairwise(edges)]
    return LaneHistory([_streams(one) for one in streams], parts)


def _streams(values: Any) -> Streams:
    if not isinstance(values, Mapping) or not isinstance(values.get("seed"), int) or values["seed"] < 0:
        raise ValueError("a random stream is damaged")
    streams = Streams(values["seed"])
    for name in _STREAMS:
        state = values.get(name)
        kept = getattr(streams, name).bit_generator.state
        if not _same_form(state, kept):
            raise ValueError(f"random stream {name!r} is damaged: {json.dumps(state)[:60]}")
        getattr(streams, name).bit_generator.state = state
    return streams


def _same_form(state: Any, kept: Any) -> bool:
    """Whether a state has the entries of a real one, with numbers in the range of words."""
    if isinstance(kept, Mapping):
        same = isinstance(state, Mapping) and state.keys() == kept.keys()
        return same and all(_same_form(state[name], kept[name]) for name in kept)
    if isinstance(kept, str):
        return bool(state == kept)
    return isinstance(state, int) and not isinstance(state, bool) and 0 <= state < _WORD
