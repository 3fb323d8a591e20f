"""Compile once, in one process, before the workers of pytest-xdist start.

Two workers that compile the same functions side by side do the work twice, and now and then numba finds a half-written
cache of the other's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """In the controller alone: workers have a `workerinput`."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        root = Path(__file__).resolve().parent.parent
        subprocess.run([sys.executable, "-m", "tests.warm"], cwd=root, check=True)
