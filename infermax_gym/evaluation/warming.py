"""Compiling what will run before anything is timed, so that `wall_s` measures simulations alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numba.core import event
from numpy.typing import NDArray

from infermax_gym.cluster import Arrival, PythonRouter, Router
from infermax_gym.engine import Decision, EngineConfig, Information, OnlineView, Player, Policy
from infermax_gym.evaluation.contenders import Contender, serve
from infermax_gym.evaluation.fleets import FleetContender
from infermax_gym.workload import Workload

Notify = Callable[[], None]
"""Called once, when something has to be compiled: it takes minutes, and later processes find the result on disk."""

_POLICY = Policy("warm-up")


def say_nothing() -> None:
    """The `Notify` of those who need no word."""


def warm_up(
    contenders: Iterable[Contender] = (), config: EngineConfig | None = None, notify: Notify = say_nothing
) -> None:
    """Load the compiled code that some contenders will run, or compile it on its first use.

    Each kind of contender serves two small requests: an engine under a policy, schedulers written in Python, fleets
    by what they are made of, and every player, which may have compiled code of its own. Schedulers and routers
    written in Python are stood in for, as they may remember what they saw.

    Args:
        contenders: who will run.
        config: the engine, which says whether there is a prefix cache.
        notify: told when something has to be compiled.
    """
    caching = config is not None and config.prefix_caching
    with event.install_listener("numba:compile", _FirstCompilation(notify)):
        for stand_in in _stand_ins(contenders):
            in_parts = isinstance(stand_in, FleetContender) and any(p.config.prefix_caching for p in stand_in.parts)
            if isinstance(stand_in, FleetContender):
                stand_in = replace(stand_in, parts=())
            small = EngineConfig(prefix_caching=caching or in_parts)
            serve(stand_in, _two_requests(), small, predict=_true_lengths)


def _stand_ins(contenders: Iterable[Contender]) -> Iterator[Contender]:
    """One contender for each kind that is there; players for themselves."""
    yield _POLICY
    seen: set[tuple[bool, ...]] = set()
    for contender in contenders:
        if isinstance(contender, FleetContender):
            fleet = _fleet(contender)
            prefix_caching = any(part.config.prefix_caching for part in contender.parts)
            kind = (isinstance(fleet.router, Router), fleet.migration is None, fleet.prefill is None, prefix_caching)
            if kind not in seen:
                seen.add(kind)
                yield fleet
        elif isinstance(contender, Player):
            yield contender
        elif not isinstance(contender, Policy) and (True,) not in seen:
            seen.add((True,))
            yield _OldestFirst()


def _fleet(contender: FleetContender) -> FleetContender:
    """The same router and the same moves in front of two equal replicas."""
    prefill = contender.prefill
    if prefill is not None:
        prefill = replace(prefill, num_replicas=1, router=_compiled_router(prefill.router))
    router = _compiled_router(contender.router)
    return replace(contender, policy=_POLICY, router=router, num_replicas=2, prefill=prefill, label="")


def _compiled_router(router: Router | PythonRouter) -> Router | PythonRouter:
    return router if isinstance(router, Router) else _FirstReplica()


class _FirstReplica:
    """A router written in Python."""

    name = "warm-up"

    def choose(self, arrival: Arrival) -> int:
        return int(arrival.candidates.argmax())


class _OldestFirst:
    """A scheduler written in Python: the oldest request alone."""

    name = "warm-up"
    information = Information.NONE

    def decide(self, view: OnlineView) -> Decision:
        requests = view.running if len(view.running) else view.waiting
        lacking = requests.num_prompt_tokens[0] + requests.num_generated_tokens[0] - requests.num_computed_tokens[0]
        return Decision([(int(requests.request[0]), min(int(lacking), view.max_num_batched_tokens))])


class _FirstCompilation(event.Listener):  # type: ignore[misc]
    """Calls `notify` when numba begins to compile for the first time."""

    def __init__(self, notify: Notify) -> None:
        self._notify: Notify | None = notify

    def on_start(self, event: object) -> None:
        notify, self._notify = self._notify, None
        if notify is not None:
            notify()

    def on_end(self, event: object) -> None:
        pass


def _two_requests() -> Workload:
    return Workload(np.zeros(2), np.array([20, 3], np.int64), np.array([3, 1], np.int64))


def _true_lengths(policy: Policy, workload: Workload, seed: int) -> NDArray[np.float64]:
    return workload.num_output_tokens.astype(np.float64)
