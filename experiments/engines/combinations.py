"""Which engines the table may have, and what they resolve to: model x GPU x tensor parallel x backend x dtypes.

The limits are the defaults of the backends' own source: vLLM 0.24 (0.14 on the A100), SGLang 0.5, TensorRT-LLM 1.x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Model:
    """A model of the table.

    Attributes:
        path: its name in aiconfigurator-core.
        size_b: parameters in 10^9, for which tensor parallel sizes to try.
        is_moe: a mixture of experts.
        native: weight and KV dtypes that its name alone stands for.
    """

    path: str
    size_b: float
    is_moe: bool = False
    native: tuple[str, str] = ("bf16", "bf16")


MODELS = {
    "llama-3.1-8b": Model("meta-llama/Meta-Llama-3.1-8B", 8.0),
    "llama-3.1-70b": Model("meta-llama/Meta-Llama-3.1-70B", 70.6),
    "llama-3.1-405b": Model("meta-llama/Meta-Llama-3.1-405B", 405.9),
    "qwen3-8b": Model("Qwen/Qwen3-8B", 8.2),
    "qwen3-32b": Model("Qwen/Qwen3-32B", 32.8),
    "qwen3-30b-a3b": Model("Qwen/Qwen3-30B-A3B", 30.5, is_moe=True),
    "qwen3-235b-a22b": Model("Qwen/Qwen3-235B-A22B", 235.1, is_moe=True),
    "gpt-oss-20b": Model("openai/gpt-oss-20b", 20.9, is_moe=True, native=("mxfp4", "bf16")),
    "gpt-oss-120b": Model("openai/gpt-oss-120b", 116.8, is_moe=True, native=("mxfp4", "bf16")),
    "mixtral-8x7b": Model("mistralai/Mixtral-8x7B-v0.1", 46.7, is_moe=True),
}

GPUS = {
    "a100": ("a100_sxm", 80),
    "h100": ("h100_sxm", 80),
    "h200": ("h200_sxm", 141),
    "b200": ("b200_sxm", 180),
    "l40s": ("l40s", 45),
    "rtx-pro-6000": ("rtx_pro_6000_server", 96),
}
"""By our name: the name in aiconfigurator-core, and memory in 10^9 bytes, roughly, for which sizes to try."""

BACKENDS = ("vllm", "sglang", "trtllm")

# Gigabytes per 10^9 parameters. FP8 of experts and block-wise FP8 are left out: their tables hold launch-bound steps
# that no engine shows.
_GIGABYTES = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.56, "mxfp4": 0.56}
_MAKES_FP8 = ("h100", "h200", "b200", "l40s", "rtx-pro-6000")
_MAKES_FP4 = ("b200", "rtx-pro-6000")


@dataclass(frozen=True)
class Combination:
    """An engine to try.

    Attributes:
        model: of `MODELS`.
        gpu: of `GPUS`.
        tp: tensor parallel size.
        backend: vllm, sglang or trtllm.
        weights: weight dtype.
        kv: KV dtype.
    """

    model: str
    gpu: str
    tp: int
    backend: str
    weights: str
    kv: str

    @property
    def label(self) -> str:
        """All of it in one word, as a file name has it."""
        return f"{self.model}_{self.gpu}x{self.tp}_{self.backend}_{self.weights}_{self.kv}"


@dataclass(frozen=True)
class Limits:
    """What an engine resolves to unless told otherwise.

    Attributes:
        max_num_batched_tokens: token budget of an iteration.
        max_num_seqs: most running requests.
        block_size: tokens of a KV block.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int


def combinations() -> Iterator[Combination]:
    """Every engine to try: the smallest that holds the weights, then those of which they take 6 % or more."""
    for (name, model), (gpu, (_, gigabytes)), backend in product(MODELS.items(), GPUS.items(), BACKENDS):
        for weights, kv in _dtypes(model, gpu, backend):
            needed = model.size_b * _GIGABYTES[weights]
            fitting = [tp for tp in (1, 2, 4, 8) if needed <= 0.85 * gigabytes * tp]
            for tp in fitting[:3]:
                if tp == fitting[0] or needed >= 0.06 * gigabytes * tp:
                    yield Combination(name, gpu, tp, backend, weights, kv)


def _dtypes(model: Model, gpu: str, backend: str) -> list[tuple[str, str]]:
    if model.is_moe:
        return [model.native]
    found = [("bf16", "bf16")]
    if gpu in _MAKES_FP8:
        found.append(("fp8", "bf16" if backend == "sglang" else "fp8"))  # SGLang's FP8 attention was not measured
    if gpu in _MAKES_FP4 and backend != "sglang":
        found.append(("nvfp4", "fp8"))
    return found


def limits_of(gpu: str, backend: str) -> Limits:
    """What the backend's defaults are on a GPU."""
    if backend == "vllm":
        large = GPUS[gpu][1] >= 75 and gpu != "a100"  # 70 GiB or more, and not an A100
        return Limits(8_192, 1_024, 16) if large else Limits(2_048, 256, 16)
    if backend == "sglang":
        budget = {"l40s": 4_096, "b200": 16_384}.get(gpu, 8_192)
        return Limits(budget, 2_048, 1)
    return Limits(8_192, 2_048, 32)
