"""The real vLLM engine on a virtual clock: a workload served by its scheduler, in the time that the cost model says.

Needs an engine in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0) with the emulating executor and `"clock": "virtual"`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermax_gym.vllm.emulation import CLOCK, VirtualClock
from infermax_gym.vllm.errors import PlugInError

if TYPE_CHECKING:
    from infermax_gym.workload import Workload


def emulated_engine(model: Path, settings: dict[str, Any], **flags: Any) -> Any:
    """An engine of vLLM in this process, emulated on a virtual clock.

    Args:
        model: a folder of `write_model_folder`.
        settings: of the plug-in, "emulate" included.
        flags: of vLLM, such as `max_num_batched_tokens`, `max_num_seqs`, `block_size` and `max_model_len`.
    """
    from vllm import LLM

    emulate = settings["emulate"]
    asynchronous = isinstance(emulate, dict) and emulate.get("async_scheduling", False)
    given = {
        "model": str(model),
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "disable_log_stats": True,
        "scheduler_cls": f"infermax_gym.vllm.{'Async' if asynchronous else ''}PolicyScheduler",
        "distributed_executor_backend": "infermax_gym.vllm.EmulatedExecutor",
        "additional_config": {"infermax": settings},
    }
    return LLM(**{**given, **flags}).llm_engine


def serve(engine: Any, workload: Workload) -> float:
    """Serve a workload to its end; returns the seconds that have passed on the virtual clock.

    Requests are called by their numbers. Each comes when the clock has reached its arrival.

    Args:
        engine: vLLM's, of `emulated_engine`.
        workload: whom it serves; prompts are tokens of the workload's prefix blocks, then of their own.

    Raises:
        PlugInError: the engine runs on the machine's clock.
    """
    from vllm import SamplingParams

    clock = getattr(engine.vllm_config, CLOCK, None)
    if not isinstance(clock, VirtualClock):
        raise PlugInError('infermax: the engine has no virtual clock; give "emulate" and "clock": "virtual"')
    arrived, n = 0, len(workload)
    while arrived < n or engine.has_unfinished_requests():
        if not engine.has_unfinished_requests():
            clock.wait_until(float(workload.arrival_s[arrived]))
        while arrived < n and workload.arrival_s[arrived] <= clock.now_s:
            outputs = int(workload.num_output_tokens[arrived])
            params = SamplingParams(max_tokens=outputs, ignore_eos=True, detokenize=False)
            prompt = {"prompt_token_ids": prompt_tokens(workload, arrived)}
            engine.add_request(str(arrived), prompt, params, arrival_time=float(workload.arrival_s[arrived]))
            arrived += 1
        engine.step()
    return clock.now_s


def prompt_tokens(workload: Workload, request: int) -> list[int]:
    """A prompt of the right length, in words of `model_folder`."""
    own = 16 + request % 3000
    return [own + place % 1000 for place in range(int(workload.num_prompt_tokens[request]))]
