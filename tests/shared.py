"""Where the material is that the tests share with other work: traces and the outputs of public peers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _find_shared() -> Path | None:
    """INFERMAX_SHARED where it is set, else `shared` beside the repository; None where that is no directory."""
    named = os.environ.get("INFERMAX_SHARED")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return path if path.is_dir() else None


SHARED: Path | None = _find_shared()

needs_shared = pytest.mark.skipif(
    SHARED is None,
    reason="needs the directory 'shared' beside the repository (or INFERMAX_SHARED): traces and oracles",
)
