"""Learned schedulers: how they are trained, stored and run.

Reading order: `agent` (what a trained policy is), `storage` (files), `controller` and `controller_kernel` (networks
that set the algorithm's knobs), `evolution` (how those are found); then `networks` (a network that decides in
`InferMax-v0`), `play` and `compiled` (running it), `imitation`, `ppo` and `search` (how it learns). `train.py` puts
them together; docs/agents.md says what came out. How the shipped policies were made is in `experiments/`.

Names here are loaded when they are used: importing this package needs none of the extra `agents`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infermax_gym.agents.agent import Agent, AgentError
    from infermax_gym.agents.storage import list_agents, load_agent, save_agent

__all__ = ["Agent", "AgentError", "list_agents", "load_agent", "save_agent"]

_HOME = {
    "Agent": "agent",
    "AgentError": "agent",
    "list_agents": "storage",
    "load_agent": "storage",
    "save_agent": "storage",
}
_EXTRA = frozenset(("safetensors", "torch", "stable_baselines3", "sb3_contrib", "cma"))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise missing_extra(package) from None


def missing_extra(package: str) -> ModuleNotFoundError:
    """The error, in one line, for a package that only the extra `agents` installs."""
    message = f"trained policies need {package}, which is not installed; run pip install 'infermax-gym[agents]'"
    return ModuleNotFoundError(message, name=package)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
