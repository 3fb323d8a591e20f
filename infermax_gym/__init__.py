"""infermax_gym: LLM inference scheduling as an environment, with every scheduler and the optimum beside it.

`import infermax_gym as ig` has the names that most people need, each imported when it is first used:

    >>> import infermax_gym as ig
    >>> workload = ig.make_workload("azure-conv", 200, seed=0)
    >>> ig.simulate(workload, ig.EngineConfig(), ig.POLICIES["vllm"]).num_iterations > 0
    True

Where to read first:

- `infermax_gym.engine`: the simulator (`simulate`, `EngineConfig`, `Policy`), one compiled scheduling algorithm.
- `infermax_gym.envs`: the Gymnasium environments, registered when this package is imported; `gym.make("InferMax-v0")`,
  or `gym.make("infermax_gym:InferMax-v0")` where nothing has imported it yet.
- `infermax_gym.cost` and `infermax_gym.workload`: what an iteration costs, where requests come from.
- `infermax_gym.cluster`: several engines behind a router; `infermax_gym.evaluation`: comparing schedulers.
- `infermax_gym.baselines`: the table of schedulers and the optimum; `infermax_gym.agents`: learned ones;
  `infermax_gym.suite`: the frozen benchmark; `infermax_gym.cli`: the command; `infermax_gym.plugins`: what other
  packages add.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from infermax_gym.envs import register_envs
from infermax_gym.suite.registration import register_suite

if TYPE_CHECKING:
    from infermax_gym.agents import Agent, AgentError, list_agents, load_agent, save_agent
    from infermax_gym.baselines.catalogue import SCHEDULERS
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.baselines.predict import predictions, router_predictions
    from infermax_gym.baselines.routers import ROUTERS
    from infermax_gym.cluster import (
        Arrival,
        Fleet,
        FleetResult,
        Migration,
        PythonRouter,
        Replica,
        Router,
        RouterError,
        simulate_fleet,
        summarize_fleet,
    )
    from infermax_gym.cost import COSTS, CostModel, CostModelError, load_cost_model
    from infermax_gym.engine import (
        ClairvoyantView,
        Decision,
        EngineConfig,
        Information,
        OnlineView,
        Player,
        Policy,
        RequestsView,
        Scheduler,
        SchedulerError,
        SimulationResult,
        Slo,
        simulate,
        summarize,
    )
    from infermax_gym.envs import (
        EnvConfig,
        InferMaxEnv,
        InferMaxKnobsEnv,
        InferMaxKnobsVectorEnv,
        InferMaxRouterEnv,
        InferMaxRouterVectorEnv,
        InferMaxVectorEnv,
        RouterEnvConfig,
    )
    from infermax_gym.evaluation import Evaluation, FleetContender, Scenario, WorkloadSpec, evaluate
    from infermax_gym.workload import (
        PRESETS,
        Workload,
        WorkloadError,
        WorkloadPreset,
        load_workload,
        make_workload,
        read_workload,
        write_workload,
    )

__version__ = "0.1.0"

register_envs()
register_suite()

# In which module each name is; tests hold this against the imports above and against __all__.
_NAMES = {
    "infermax_gym.agents": ("Agent", "AgentError", "list_agents", "load_agent", "save_agent"),
    "infermax_gym.baselines.catalogue": ("SCHEDULERS",),
    "infermax_gym.baselines.policies": ("POLICIES",),
    "infermax_gym.baselines.predict": ("predictions", "router_predictions"),
    "infermax_gym.baselines.routers": ("ROUTERS",),
    "infermax_gym.cluster": (
        *("Arrival", "Fleet", "FleetResult", "Migration", "PythonRouter", "Replica", "Router", "RouterError"),
        *("simulate_fleet", "summarize_fleet"),
    ),
    "infermax_gym.cost": ("COSTS", "CostModel", "CostModelError", "load_cost_model"),
    "infermax_gym.engine": (
        *("ClairvoyantView", "Decision", "EngineConfig", "Information", "OnlineView", "Player", "Policy"),
        *("RequestsView", "Scheduler", "SchedulerError", "SimulationResult", "Slo", "simulate", "summarize"),
    ),
    "infermax_gym.envs": (
        *("EnvConfig", "InferMaxEnv", "InferMaxKnobsEnv", "InferMaxKnobsVectorEnv"),
        *("InferMaxRouterEnv", "InferMaxRouterVectorEnv"),
        *("InferMaxVectorEnv", "RouterEnvConfig"),
    ),
    "infermax_gym.evaluation": ("Evaluation", "FleetContender", "Scenario", "WorkloadSpec", "evaluate"),
    "infermax_gym.workload": (
        *("PRESETS", "Workload", "WorkloadError", "WorkloadPreset", "load_workload", "make_workload"),
        *("read_workload", "write_workload"),
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "COSTS",
    "POLICIES",
    "PRESETS",
    "ROUTERS",
    "SCHEDULERS",
    "Agent",
    "AgentError",
    "Arrival",
    "ClairvoyantView",
    "CostModel",
    "CostModelError",
    "Decision",
    "EngineConfig",
    "EnvConfig",
    "Evaluation",
    "Fleet",
    "FleetContender",
    "FleetResult",
    "InferMaxEnv",
    "InferMaxKnobsEnv",
    "InferMaxKnobsVectorEnv",
    "InferMaxRouterEnv",
    "InferMaxRouterVectorEnv",
    "InferMaxVectorEnv",
    "Information",
    "Migration",
    "OnlineView",
    "Player",
    "Policy",
    "PythonRouter",
    "Replica",
    "RequestsView",
    "Router",
    "RouterEnvConfig",
    "RouterError",
    "Scenario",
    "Scheduler",
    "SchedulerError",
    "SimulationResult",
    "Slo",
    "Workload",
    "WorkloadError",
    "WorkloadPreset",
    "WorkloadSpec",
    "__version__",
    "evaluate",
    "list_agents",
    "load_agent",
    "load_cost_model",
    "load_workload",
    "make_workload",
    "predictions",
    "read_workload",
    "register_envs",
    "router_predictions",
    "save_agent",
    "simulate",
    "simulate_fleet",
    "summarize",
    "summarize_fleet",
    "write_workload",
]


if not TYPE_CHECKING:  # type checkers shall know the names above and no others

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
