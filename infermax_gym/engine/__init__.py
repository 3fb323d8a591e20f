"""What happens when a schedule runs.

Reading order: `policy` (the knobs of the one scheduling algorithm), `config` (the replica), `simulate` (the entry
point), `result` and `metrics` (what comes out), `scheduler` and `batch_builder` (policies written in Python), `session`
(a run that is steered from outside), then `state` and `kernel/` (the compiled steps, each file a step).
docs/engine.md states the semantics exactly.
"""

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
from infermax_gym.engine.simulate import simulate

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
