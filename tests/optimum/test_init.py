"""The package offers its names on first use and says what it has where a name is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infermax_gym.baselines import optimum
from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.portfolio import solve


def test_every_public_name_is_there() -> None:
    assert all(getattr(optimum, name) is not None for name in optimum.__all__)
    assert optimum.solve is solve and optimum.certify is certify


def test_a_wrong_name_says_which_are_right() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'solver'; it offers .*solve"):
        _ = optimum.solver


def test_importing_it_imports_none_of_its_parts() -> None:
    code = (
        "import sys, infermax_gym.baselines.optimum as o; "
        "print(sorted(m for m in sys.modules if m.startswith(o.__name__ + '.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
