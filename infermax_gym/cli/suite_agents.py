"""From the name or file of an agent to what plays the suite."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from infermax_gym.cli import inputs, own
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.suite.play import SuiteAgent


def suite_agents(names: Sequence[str], trust_pickle: bool = False) -> dict[str, SuiteAgent]:
    """Agents by their SHA-256.

    Raises:
        InputError: nothing has such a name, or two of them are the same.
    """
    from infermax_gym.suite.result import fingerprint

    found: dict[str, SuiteAgent] = {}
    for name in names:
        agent, file = _agent(name, trust_pickle)
        digest = fingerprint(agent, file)
        if digest in found:
            raise InputError(f"{name}: the same agent is given twice; each training run counts once")
        found[digest] = agent
    return found


def _agent(name: str, trust_pickle: bool) -> tuple[SuiteAgent, Path | None]:
    """An agent, and the file that it is: a trained policy, a router, a scheduler, or a function that acts."""
    from infermax_gym.agents.cards import SUFFIX, resolve
    from infermax_gym.baselines.routers import ROUTERS
    from infermax_gym.suite.play import ActingAgent, random_agent

    if name == "random":
        return random_agent(), None
    if name in ROUTERS:
        return ROUTERS[name], None
    file = resolve(name)
    if file.is_file():
        return inputs.agent(name, trust_pickle), file  # type: ignore[return-value]
    if ":" in name and "+" not in name:
        module, _, attribute = name.partition(":")
        own.search_here()
        try:
            act = getattr(import_module(module), attribute, None)
        except ImportError as error:
            raise InputError(f"agent {name!r}: cannot import {module!r} ({error})") from None
        source = inspect.getsourcefile(act) if inspect.isroutine(act) or inspect.isclass(act) else None
        place = None if source is None else Path(source)
        return (ActingAgent(name, act=act) if inspect.isfunction(act) else inputs.policy(name)), place
    if name.endswith(SUFFIX):
        raise InputError(f"agent {name!r}: no such file")
    return inputs.policy(name), None
