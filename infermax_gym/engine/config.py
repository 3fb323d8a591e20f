"""The engine under the schedulers: its memory, its caps and what its iterations cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from infermax_gym.cost import COSTS, CostModel


def _default_cost() -> CostModel:
    return COSTS["llama2-7b-a100"]


@dataclass(frozen=True)
class EngineConfig:
    """One replica.

    Attributes:
        cost: seconds per iteration.
        num_kv_tokens: KV capacity in tokens; whole blocks of it are used.
        block_size: tokens per KV block (vLLM: 16).
        max_num_batched_tokens: token budget of an iteration.
        max_num_seqs: most requests running at once.
        max_model_len: longest prompt + output the engine is set up for, in tokens: what policies reserve that
            know nothing better, and the least token budget of policies that cannot cut prompts. None: the
            workload's longest request, rounded up to a power of two.
        max_output_tokens: upper bound on output lengths that the service promises its scheduler. None: the
            workload's longest output, rounded up to a power of two.
        num_host_kv_tokens: host memory for swapped KV, in tokens.
        swap_tokens_per_s: KV tokens per second between device and host, either way. Default: 0.5 MiB per token
            (llama2-7b, 16 bit) over an effective 25 GB/s.
        prefix_caching: whether full KV blocks can be found again after their request has let go of them, by other
            requests with the same prefix (`Workload.prefix_blocks`) and by itself after a preemption.
        empty_blocks_first: of the prefix cache: blocks without contents that are freed are used again before all
            others (vLLM from 0.25 on), instead of after them.
        async_scheduling: whether each iteration is decided when the one before it begins (vLLM's default on GPUs).
            For policies that `simulate` runs.

    Raises:
        ValueError: a size is below one, or the swap bandwidth is not positive.
    """

    cost: CostModel = field(default_factory=_default_cost)
    num_kv_tokens: int = 100_000
    block_size: int = 16
    max_num_batched_tokens: int = 512
    max_num_seqs: int = 256
    max_model_len: int | None = None
    max_output_tokens: int | None = None
    num_host_kv_tokens: int = 1_000_000
    swap_tokens_per_s: float = 47_684.0
    prefix_caching: bool = False
    empty_blocks_first: bool = False
    async_scheduling: bool = False

    def __post_init__(self) -> None:
        for name in ("num_kv_tokens", "block_size", "max_num_batched_tokens", "max_num_seqs"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("max_model_len", "max_output_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.num_kv_tokens < self.block_size:
            raise ValueError(f"num_kv_tokens ({self.num_kv_tokens}) must hold at least one block of {self.block_size}")
        if self.num_host_kv_tokens < 0:
            raise ValueError(f"num_host_kv_tokens must not be negative, got {self.num_host_kv_tokens}")
        if not self.swap_tokens_per_s > 0.0:
            raise ValueError(f"swap_tokens_per_s must be positive, got {self.swap_tokens_per_s}")

    @property
    def num_blocks(self) -> int:
        """KV capacity in blocks."""
        return self.num_kv_tokens // self.block_size
