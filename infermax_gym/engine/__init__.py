"""What happens when a schedule runs.

Reading order: `policy` (the knobs of the one scheduling algorithm), `config` (the replica), `simulation` (the entry
point), `result` and `metrics` (what comes out), `scheduler` and `batch_builder` (policies written in Python), `session`
(a run that is steered from outside), then `state` and `kernel/` (the compiled steps, each file a step).
docs/engine.md states the semantics exactly.

Names here are loaded when they are used: `policy` and `config` are read where no compiler is, as inside vLLM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infermax_gym.engine.batch_builder import BatchBuilder
    from infermax_gym.engine.cached import cached_tokens
    from infermax_gym.engine.config import EngineConfig
    from infermax_gym.engine.invariants import InvariantChecker, InvariantError
    from infermax_gym.engine.metrics import Slo, distribution, meets_slo, summarize
    from infermax_gym.engine.policy import Information, Policy
    from infermax_gym.engine.result import STATUS_NAMES, Iteration, SimulationResult
    from infermax_gym.engine.scheduler import (
        ClairvoyantView,
        Decision,
        OnlineView,
        Player,
        RequestsView,
        Scheduler,
        SchedulerError,
    )
    from infermax_gym.engine.session import Session, install_policy
    from infermax_gym.engine.simulation import simulate

_NAMES = {
    "batch_builder": ("BatchBuilder",),
    "cached": ("cached_tokens",),
    "config": ("EngineConfig",),
    "invariants": ("InvariantChecker", "InvariantError"),
    "metrics": ("Slo", "distribution", "meets_slo", "summarize"),
    "policy": ("Information", "Policy"),
    "result": ("STATUS_NAMES", "Iteration", "SimulationResult"),
    "scheduler": (
        *("ClairvoyantView", "Decision", "OnlineView", "Player", "RequestsView", "Scheduler", "SchedulerError"),
    ),
    "session": ("Session", "install_policy"),
    "simulation": ("simulate",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "STATUS_NAMES",
    "BatchBuilder",
    "ClairvoyantView",
    "Decision",
    "EngineConfig",
    "Information",
    "InvariantChecker",
    "InvariantError",
    "Iteration",
    "OnlineView",
    "Player",
    "Policy",
    "RequestsView",
    "Scheduler",
    "SchedulerError",
    "Session",
    "SimulationResult",
    "Slo",
    "cached_tokens",
    "distribution",
    "install_policy",
    "meets_slo",
    "simulate",
    "summarize",
]


if not TYPE_CHECKING:  # type checkers shall know the names above and no others

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
