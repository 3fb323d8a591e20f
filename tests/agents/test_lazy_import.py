"""`infermax_gym.agents` is imported without its extra; what is missing is said in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infermax_gym import agents


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_nothing() -> None:
    heavy = "('torch', 'safetensors', 'numba', 'stable_baselines3', 'cma')"
    assert run(f"import infermax_gym.agents, sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_reading_and_listing_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from infermax_gym.agents import load_agent; "
    assert run(code + "print(load_agent('generalist').kind)") == "controller"


def test_without_the_extra_one_line_names_it() -> None:
    code = (
        "import sys; sys.modules['{0}'] = None\n"
        "try:\n"
        "    from infermax_gym.agents import load_agent\n"
        "    load_agent('conv-ppo')\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    for package in ("safetensors", "torch"):
        said = run(code.format(package))
        assert said == (
            f"trained policies need {package}, which is not installed; run pip install 'infermax-gym[agents]'"
        )


def test_public_names_are_listed_and_others_refused() -> None:
    assert set(agents.__all__) <= set(dir(agents))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = agents.nonsense
