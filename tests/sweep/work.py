"""Work that processes of tests do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def load(recipe: Any) -> Any:
    if recipe == "unreadable":
        raise ValueError("no such\nrequests")
    return recipe


def run(argument: Any, shared: Any) -> dict[str, Any]:
    """Figures of a number; some numbers raise, die always, or die the first time."""
    if argument == "raises":
        raise RuntimeError("cannot be\nscheduled")
    if argument == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(argument, str) and argument.startswith("dies once"):
        marker = Path(argument.split("@")[1])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(argument, str) and argument.startswith("slow"):
        time.sleep(0.02)
    return {"num_requests": 3, "ttft_s_mean": None if argument == "empty" else 0.5, "shared": str(shared)}
