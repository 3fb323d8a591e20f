"""The command that starts vLLM's OpenAI server on an emulated engine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
"""Environment of a vLLM that needs neither a network nor cores of its own."""


def server_command(
    model: Path, settings: Mapping[str, Any], flags: Mapping[str, Any], more: Sequence[str]
) -> list[str]:
    """The command line of a server.

    Args:
        model: folder with a configuration and a tokenizer.
        settings: of the plug-in; with "emulate" the batches are timed and not computed.
        flags: of vLLM, by name; None leaves one out.
        more: flags as they are.
    """
    emulate = settings.get("emulate")
    asynchronous = isinstance(emulate, Mapping) and emulate.get("async_scheduling", False)
    given = {
        "model": model,
        **flags,
        "scheduler-cls": f"infermax_gym.vllm.{'Async' if asynchronous else ''}PolicyScheduler",
        "additional-config": json.dumps({"infermax": settings}),
    }
    if emulate is not None:
        given["distributed-executor-backend"] = "infermax_gym.vllm.EmulatedExecutor"
    parts = [f"--{name}={value}" for name, value in given.items() if value is not None]
    # The command `vllm` looks for a distribution of that name, which a CPU build is not.
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *parts, "--enforce-eager", *more]


def server_environment() -> dict[str, str]:
    """The environment to start it in: what the caller has set comes first."""
    return {**QUIET, **os.environ}
