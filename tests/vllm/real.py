"""The real scheduler of vLLM, of any supported version, without a model: what runs it and what it decided.

Runs in an environment that has vllm; its configuration is a stand-in with the attributes that schedulers read.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock

from infermax_gym.cost import CostModel
from infermax_gym.engine.config import EngineConfig
from infermax_gym.vllm.seconds import batch_seconds
from infermax_gym.workload import Workload

MODEL_LEN = 1 << 20


class _Loose:
    """Attributes as given; every other one is None, and false."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@dataclass(frozen=True)
class Knobs:
    """vLLM's own flags, as `vllm serve` has them."""

    policy: str = "fcfs"
    long_prefill_token_threshold: int = 0
    reserve_full_isl: bool = False
    watermark: float = 0.0


def real_config(config: EngineConfig, knobs: Knobs, additional_config: dict[str, Any] | None = None) -> Any:
    """A stand-in for `VllmConfig`."""
    budget = config.max_num_batched_tokens
    return _Loose(
        scheduler_config=_Loose(
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=budget,
            max_num_encoder_input_tokens=budget,
            policy=knobs.policy,
            long_prefill_token_threshold=knobs.long_prefill_token_threshold,
            enable_chunked_prefill=True,
            scheduler_reserve_full_isl=knobs.reserve_full_isl,
            watermark=knobs.watermark,
            max_model_len=MODEL_LEN,
            prefill_schedule_interval=1,
        ),
        cache_config=_Loose(
            num_gpu_blocks=config.num_blocks + 1,
            enable_prefix_caching=config.prefix_caching,
            block_size=config.block_size,
            mamba_cache_mode="none",
        ),
        model_config=_Loose(max_model_len=MODEL_LEN, runner_type="generate", is_diffusion=False),
        parallel_config=_Loose(
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
            pipeline_parallel_size=1,
            data_parallel_size=1,
            data_parallel_rank=0,
            data_parallel_index=0,
        ),
        observability_config=_Loose(per_request_spec_decode_metrics="none"),
        ec_manager_config=_Loose(get_encoder_cache_manager_obj=lambda: None),
        aux_output_config=_Loose(),
        num_speculative_tokens=0,
        use_v2_model_runner=False,
        num_lookahead_tokens=0,
        num_prefill_lookahead_tokens=0,
        num_hash_lookahead_tokens=0,
        max_in_flight_tokens=budget,
        max_concurrent_batches=1,
        additional_config=additional_config or {},
    )


def _cache_config(config: EngineConfig) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    given = {"block_size": config.block_size, "num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    known = inspect.signature(FullAttentionSpec).parameters
    if "use_mla" in known:
        given["use_mla"] = False
    spec = FullAttentionSpec(**given)
    groups = [KVCacheGroupSpec(["layer"], spec)]
    return KVCacheConfig(num_blocks=config.num_blocks + 1, kv_cache_tensors=[], kv_cache_groups=groups)


def make_scheduler(
    config: EngineConfig, knobs: Knobs, settings: dict[str, Any] | None = None, name: str = "PolicyScheduler"
) -> Any:
    """vLLM's scheduler, or with settings of the plug-in the plug-in's class of that name."""
    logging.getLogger("vllm").setLevel(logging.ERROR)
    from vllm.v1.core.sched.scheduler import Scheduler

    import infermax_gym.vllm

    kind: Any = Scheduler if settings is None else getattr(infermax_gym.vllm, name)
    outputs = MagicMock()
    outputs.should_advance.return_value = False
    outputs.accept_tokens.return_value = True
    vllm_config = real_config(config, knobs, {"infermax": settings} if settings is not None else None)
    return kind(vllm_config, _cache_config(config), outputs, block_size=config.block_size)


class RealRequests:
    """A workload as requests of vLLM."""

    def __init__(self, workload: Workload, config: EngineConfig, hints: list[dict[str, Any]] | None = None) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        self._workload, self._config = workload, config
        self._known = inspect.signature(Request.__init__).parameters
        self._request, self._params = Request, SamplingParams
        self._hints = hints
        self._hasher = self._make_hasher() if config.prefix_caching else None

    def _make_hasher(self) -> Any:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        init_none_hash(sha256)
        return get_request_block_hasher(self._config.block_size, sha256)

    def make(self, r: int) -> Any:
        """Request r."""
        workload = self._workload
        params = self._params(max_tokens=int(workload.num_output_tokens[r]), ignore_eos=True)
        if self._hints is not None:
            params.extra_args = {f"infermax_{name}": value for name, value in self._hints[r].items()}
        given = {
            "request_id": str(r),
            "prompt_token_ids": self._tokens(r),
            "sampling_params": params,
            "pooling_params": None,
            "arrival_time": float(workload.arrival_s[r]),
            "priority": int(workload.priority[r]),
            "block_hasher": self._hasher,
        }
        if "eos_token_id" in self._known:
            given["eos_token_id"] = None
        return self._request(**given)

    def _tokens(self, r: int) -> list[int]:
        """Token ids: equal where prefix blocks say so, else different from everybody's."""
        workload = self._workload
        size = workload.prefix_block_size
        own = (r + 1) * (1 << 22)
        length = int(workload.num_prompt_tokens[r])
        tokens = list(range(own, own + length))
        blocks = workload.prefix_blocks[workload.prefix_start[r] : workload.prefix_start[r + 1]]
        for place, block in enumerate(blocks):
            shared = [(1 << 50) + int(block) * size + i for i in range(size)]
            tokens[place * size : (place + 1) * size] = shared
        return tokens[:length]


@dataclass
class RealIteration:
    """One iteration of a real scheduler."""

    start_s: float
    end_s: float
    batch: tuple[tuple[int, int], ...]
    preempted: tuple[int, ...]


@dataclass
class RealRun:
    """What a real scheduler did."""

    iterations: list[RealIteration]
    first_token_s: dict[int, float]
    finish_s: dict[int, float]
    kept_twice: bool = False
    """Whether a block's contents were ever kept twice: two requests computed them at the same time. vLLM keeps both
    blocks, where the simulator exchanges the second for the first."""


def serve(scheduler: Any, workload: Workload, config: EngineConfig, requests: RealRequests) -> RealRun:
    """Serve a workload with a scheduler of vLLM; the clock is driven by the cost of each batch."""
    return _Loop(scheduler, workload, config, requests).run()


class _Loop:
    def __init__(self, scheduler: Any, workload: Workload, config: EngineConfig, requests: RealRequests) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        self.scheduler, self.workload, self.cost, self.requests = scheduler, workload, config.cost, requests
        self.output_type = ModelRunnerOutput
        self.clock_s = 0.0
        self.live: dict[str, Any] = {}
        self.preempted: list[int] = []
        self.known_at_start: dict[str, int] = {}
        self.result = RealRun([], {}, {})
        if hasattr(scheduler, "infermax"):
            scheduler.infermax.clock = lambda: self.clock_s
            scheduler.infermax.decisions._origin_s = 0.0
        own = scheduler._preempt_request

        def preempt(request: Any, *args: Any, **kwargs: Any) -> None:
            self.preempted.append(int(request.request_id))
            self.known_at_start.pop(request.request_id, None)
            own(request, *args, **kwargs)

        scheduler._preempt_request = preempt

    def run(self) -> RealRun:
        arrived, n = 0, len(self.workload)
        while True:
            while arrived < n and self.workload.arrival_s[arrived] <= self.clock_s:
                request = self.requests.make(arrived)
                self.live[request.request_id] = request
                self.scheduler.add_request(request)
                arrived += 1
            if not self.live:
                if arrived == n:
                    return self.result
                self.clock_s = max(self.clock_s, float(self.workload.arrival_s[arrived]))
                continue
            if not self._step():
                assert arrived < n, "nothing can run though requests wait"
                self.clock_s = max(self.clock_s, float(self.workload.arrival_s[arrived]))

    def _step(self) -> bool:
        resident = {name: request.num_computed_tokens for name, request in self.live.items()}
        output = self.scheduler.schedule()
        batch = output.num_scheduled_tokens
        self.result.kept_twice = self.result.kept_twice or self._keeps_twice()
        if not batch:
            return bool(self.preempted)
        for name in batch:
            self.known_at_start.setdefault(name, self.live[name].num_tokens)
        start_s = self.clock_s
        self.clock_s = start_s + self._seconds(batch, resident)
        members = tuple((int(name), tokens) for name, tokens in batch.items())
        self.result.iterations.append(RealIteration(start_s, self.clock_s, members, tuple(self.preempted)))
        self.preempted.clear()
        self._emit(output, batch)
        return True

    def _keeps_twice(self) -> bool:
        found = self.scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block
        return any(isinstance(blocks, dict) and len(blocks) > 1 for blocks in found._cache.values())

    def _seconds(self, batch: dict[str, int], resident: dict[str, int]) -> float:
        prefills, decodes = [], []
        for name, tokens in batch.items():
            request = self.live[name]
            before = request.num_computed_tokens - tokens  # what it found in the prefix cache included
            if request.num_tokens == self.known_at_start[name]:
                prefills.append((tokens, before))
            else:
                decodes.append(before)
        return seconds_of(self.cost, prefills, decodes)

    def _emit(self, output: Any, batch: dict[str, int]) -> None:
        names = list(batch)
        sampled = []
        for name in names:
            request = self.live[name]
            done = request.num_computed_tokens >= request.num_tokens  # placeholders of the tokens to come not counted
            sampled.append([own_token(int(name), request.num_output_tokens)] if done else [])
            if done:
                r = int(name)
                self.result.first_token_s.setdefault(r, self.clock_s)
                self.result.finish_s[r] = self.clock_s
        given = {
            "req_ids": names,
            "req_id_to_index": {name: i for i, name in enumerate(names)},
            "sampled_token_ids": sampled,
            "logprobs": None,
            "prompt_logprobs_dict": {},
            "pooler_output": [],
        }
        self.scheduler.update_from_output(output, self.output_type(**given))
        for name in names:
            if self.live[name].is_finished():
                del self.live[name]
                self.known_at_start.pop(name, None)


def own_token(r: int, number: int) -> int:
    """An output token that no other request has, so that no block of outputs is shared."""
    return (1 << 55) + (r << 22) + number


def seconds_of(cost: CostModel, prefills: list[tuple[int, int]], decodes: list[int]) -> float:
    """Seconds of a batch by the simulator's cost."""
    return batch_seconds(
        cost,
        sum(c for c, _ in prefills) + len(decodes),
        sum(c * c + 2 * c * m for c, m in prefills),
        len(prefills),
        sum(m for _, m in prefills),
        sum(decodes),
        len(decodes),
    )
