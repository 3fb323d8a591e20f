"""As much of vLLM's scheduler as the plug-in touches, for tests without vllm."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any


class Status(Enum):
    FINISHED_STOPPED = 1
    FINISHED_ABORTED = 2


def request(name: str, prompt: int = 10, arrival_s: float = 0.0, **values: Any) -> Any:
    """A request that waits."""
    given = {
        "request_id": name,
        "num_prompt_tokens": prompt,
        "num_tokens": prompt,
        "num_output_tokens": 0,
        "num_output_placeholders": 0,
        "num_computed_tokens": 0,
        "arrival_time": arrival_s,
        "priority": 0,
        "sampling_params": None,
        "status": Status.FINISHED_STOPPED,
    }
    return SimpleNamespace(**{**given, **values})


class FakeMemory:
    """A KV cache in which every request holds what it has computed."""

    def __init__(self, free_blocks: int = 100, block_size: int = 16) -> None:
        self.free_blocks = free_blocks
        self._block_size = block_size

    def held_tokens(self, entry: Any) -> int:
        return self.freed_blocks(entry) * self._block_size

    def freed_blocks(self, entry: Any) -> int:
        return -(-entry.computed // self._block_size)


def scheduler(**values: Any) -> Any:
    """A scheduler that is complete."""
    pool = SimpleNamespace(num_gpu_blocks=101, get_num_free_blocks=lambda: 100)
    manager = SimpleNamespace(
        block_pool=pool,
        coordinator=SimpleNamespace(single_type_managers=[SimpleNamespace(req_to_blocks={})]),
        allocate_slots=lambda *args, **kwargs: "blocks",
    )
    given = {
        "kv_cache_manager": manager,
        "kv_cache_config": SimpleNamespace(kv_cache_groups=[0]),
        "vllm_config": SimpleNamespace(
            speculative_config=None, parallel_config=SimpleNamespace(pipeline_parallel_size=1)
        ),
        "connector": None,
        "policy": SimpleNamespace(value="fcfs"),
        "block_size": 16,
        "max_num_scheduled_tokens": 256,
        "max_num_running_reqs": 8,
        "max_model_len": 4096,
        "waiting": [],
        "running": [],
        "requests": {},
        "scheduler_config": SimpleNamespace(long_prefill_token_threshold=0),
        "cache_config": SimpleNamespace(enable_prefix_caching=False),
    }
    return SimpleNamespace(**{**given, **values})
