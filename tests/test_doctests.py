"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "infermax_gym"
OPTIONAL = {"ortools", "torch", "stable_baselines3", "sb3_contrib", "matplotlib", "safetensors", "cma"}


def with_examples() -> list[str]:
    """Dotted names of the modules that have an example."""
    # agents/ and baselines/ are links, which rglob does not follow.
    folders = (LIBRARY, LIBRARY / "agents", LIBRARY / "baselines")
    paths = {path for folder in folders for path in folder.rglob("*.py")}
    found = [path for path in paths if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in sorted(found)]


@pytest.mark.parametrize("name", with_examples())
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"needs {error.name}")
        raise
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0
