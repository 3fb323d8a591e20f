"""An executor of vLLM that emulates a GPU: the real server and scheduler, with batches timed and not computed.

vLLM takes it as `--distributed-executor-backend infermax_gym.vllm.EmulatedExecutor`; the scheduler class of the plug-in
then stands beside it on the same clock. Nothing of a model is loaded.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from infermax_gym.vllm.emulation import CLOCK, Clock, EmulatedDevice, Launched, RealClock, VirtualClock
from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.settings import read_settings

if TYPE_CHECKING:
    from infermax_gym.vllm.settings import Settings


class Pending(Future[Any]):
    """An iteration's output: there when the clock is at the iteration's end.

    Args:
        clock: of the executor.
        end_s: when it ends.
        output: what it computed.
    """

    def __init__(self, clock: Clock, end_s: float, output: Any) -> None:
        super().__init__()
        self._clock, self._end_s, self._output = clock, end_s, output

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it."""
        if not self.done():
            self._clock.wait_until(self._end_s)
            self.set_result(self._output)
        return super().result(timeout)


class Emulator:
    """What the executor class delegates to.

    Args:
        vllm_config: vLLM's configuration.
        settings: what the user asked for.

    Raises:
        PlugInError: the settings emulate nothing, or the KV memory is not known.
    """

    def __init__(self, vllm_config: Any, settings: Settings) -> None:
        if settings.emulation is None:
            raise PlugInError('infermax: the executor needs an engine; give {"infermax": {"emulate": ENGINE}}')
        self._config, self._emulation = vllm_config, settings.emulation
        if self._emulation.num_kv_tokens is None and vllm_config.cache_config.num_gpu_blocks_override is None:
            raise PlugInError(
                "infermax: emulate: a cost model does not say how much KV memory there is; give kv_tokens, or "
                "--num-gpu-blocks-override"
            )
        clock: Clock = VirtualClock() if self._emulation.virtual else RealClock()
        setattr(vllm_config, CLOCK, clock)
        if self._emulation.async_scheduling:
            vllm_config.scheduler_config.async_scheduling = True  # the CPU platform has switched it off
        self.device = EmulatedDevice(self._emulation.cost, clock, int(vllm_config.model_config.get_vocab_size()))

    def answer(self, method: Any) -> Any:
        """What a worker would say.

        Raises:
            NotImplementedError: it would have to compute.
        """
        if method == "get_kv_cache_spec":
            return {"emulated": self._spec()}
        if method == "determine_available_memory":
            tokens = self._emulation.num_kv_tokens or self._config.cache_config.block_size
            blocks = tokens // self._config.cache_config.block_size
            return (blocks + 1) * self._spec().page_size_bytes  # one more: the null block
        if method == "get_supported_kv_cache_layouts":
            return _layouts()
        if method == "get_supported_tasks":
            return ("generate",)
        if method in _NOTHING_TO_DO:
            return None
        raise NotImplementedError(f"infermax: an emulated engine has no {method}")

    def launch(self, output: Any) -> Future[Any]:
        """Begin an iteration; its output when the clock is there."""
        from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

        if not output.num_scheduled_tokens:
            self.device.forget(output.finished_req_ids)
            return Pending(self.device.clock, 0.0, EMPTY_MODEL_RUNNER_OUTPUT)
        launched = self.device.launch(output)
        return Pending(self.device.clock, launched.end_s, _runner_output(launched))

    def _spec(self) -> Any:
        """One layer with blocks of the right number of tokens, as small as they get."""
        import torch
        from vllm.v1.kv_cache_interface import FullAttentionSpec

        block_size = self._config.cache_config.block_size
        return FullAttentionSpec(block_size=block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)


_NOTHING_TO_DO = (
    *("initialize_from_config", "compile_or_warm_up_model", "set_kv_cache_layout", "update_max_model_len"),
    *("initialize_cache", "execute_dummy_batch", "reset_mm_cache", "reset_encoder_cache", "check_health", "shutdown"),
)


def _layouts() -> list[str]:
    """Names of every KV cache layout, the usual one first; older versions do not ask."""
    from vllm.v1.kv_cache_layout import KVCacheLayout

    return [layout.name for layout in KVCacheLayout]


def _runner_output(launched: Launched) -> Any:
    from vllm.v1.outputs import ModelRunnerOutput

    return ModelRunnerOutput(
        req_ids=launched.names,
        req_id_to_index={name: place for place, name in enumerate(launched.names)},
        sampled_token_ids=launched.tokens,
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
    )


def executor_class() -> type[Any]:
    """The class that vLLM is told to use."""
    from vllm.v1.executor.abstract import Executor

    base: Any = Executor

    class EmulatedExecutor(base):  # type: ignore[misc]
        """vLLM's executor that takes seconds from a cost model."""

        def _init_executor(self) -> None:
            self.infermax = Emulator(self.vllm_config, read_settings(self.vllm_config.additional_config))
            self._pending: Future[Any] | None = None

        def collective_rpc(
            self, method: Any, timeout: Any = None, args: Any = (), kwargs: Any = None, non_block: bool = False
        ) -> Any:
            answers = [self.infermax.answer(method)]
            if not non_block:
                return answers
            future: Future[Any] = Future()
            future.set_result(answers)
            return future

        def compile_or_warm_up_model(self) -> None:
            pass

        def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
            pending = self.infermax.launch(scheduler_output)
            self._pending = pending
            return pending if non_block else pending.result()

        def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
            assert self._pending is not None
            return self._pending if non_block else self._pending.result()

        def check_health(self) -> None:
            pass

        @classmethod
        def supports_async_scheduling(cls) -> bool:
            return True

    # vLLM sends it to the engine's process by its name.
    EmulatedExecutor.__module__, EmulatedExecutor.__qualname__ = "infermax_gym.vllm", "EmulatedExecutor"
    return EmulatedExecutor
