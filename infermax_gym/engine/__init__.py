"""What happens when a schedule runs.

Reading order: `policy` (the knobs of the one scheduling algorithm), `config` (the replica), `simulate` (the entry
point), `result` and `metrics` (what comes out), `scheduler` (policies written in Python), then `state` and
`kernel/` (the compiled steps, each file a step). docs/engine.md states the semantics exactly.
"""

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
from infermax_gym.engine.simulate import simulate

__all__ = [
    "STATUS_NAMES",
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
    "SimulationResult",
    "Slo",
    "cached_tokens",
    "distribution",
    "meets_slo",
    "simulate",
    "summarize",
]
