"""`import infermax_gym as ig`: what it offers, that it is lazy, and that editors see what Python does."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import infermax_gym as ig

SOURCE = Path(ig.__file__).read_text(encoding="utf-8")
OWN = {"__version__", "register_envs"}
PROMISED = {
    *("simulate", "EngineConfig", "Policy", "POLICIES", "SCHEDULERS", "Workload", "load_workload", "make_workload"),
    *("PRESETS", "CostModel", "COSTS", "evaluate", "Scenario", "InferMaxEnv", "EnvConfig", "InferMaxKnobsEnv"),
    *(
        "InferMaxRouterEnv",
        "RouterEnvConfig",
        "InferMaxVectorEnv",
        "InferMaxKnobsVectorEnv",
        "InferMaxRouterVectorEnv",
        "load_agent",
    ),
    *("list_agents", "Fleet", "simulate_fleet", "Router", "ROUTERS", "predictions", "Scheduler", "Decision"),
    *("OnlineView", "ClairvoyantView", "RequestsView", "Information"),
}


def for_editors() -> dict[str, str]:
    """Names that the block for type checkers imports, and from where."""
    blocks = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    (block,) = (node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def test_everything_promised_is_there() -> None:
    assert set(ig.__all__) >= PROMISED


def test_editors_and_python_see_the_same_names() -> None:
    assert for_editors() == ig._MODULE_OF
    assert set(ig.__all__) == set(ig._MODULE_OF) | OWN
    assert len(ig.__all__) == len(set(ig.__all__))


@pytest.mark.parametrize("name", sorted(ig._MODULE_OF))
def test_each_name_is_what_its_module_has(name: str) -> None:
    assert name in dir(ig)
    assert getattr(ig, name) is getattr(import_module(ig._MODULE_OF[name]), name)


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="module 'infermax_gym' has no attribute 'simulator'"):
        ig.simulator  # noqa: B018


def test_a_name_costs_only_its_own_module() -> None:
    code = (
        "import sys, infermax_gym as ig; ig.CostModel;"
        "print([m for m in ('numba', 'torch', 'infermax_gym.engine', 'infermax_gym.baselines') if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


def test_everything_by_a_star() -> None:
    names: dict[str, object] = {}
    exec("from infermax_gym import *", names)
    assert set(ig.__all__) <= set(names)
