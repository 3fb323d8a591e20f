"""Names of engines: MODEL@GPU[xTP][/BACKEND][/DTYPE[-kv-DTYPE]]."""

from __future__ import annotations

import re
from dataclasses import dataclass

BACKENDS = ("vllm", "sglang", "trtllm")

_KV_OF_WEIGHTS = {"bf16": "bf16", "fp8": "fp8", "nvfp4": "fp8", "mxfp4": "bf16"}
"""The KV dtype that a weight dtype stands for: that of the published checkpoints."""

_NATIVE = {"gpt-oss-20b": "mxfp4", "gpt-oss-120b": "mxfp4"}
"""Weight dtype of models whose checkpoint has only one; the others are BF16."""

_SIZE = re.compile(r"(.+?)(?:x(\d{1,2}))?")
_DTYPES = re.compile(rf"({'|'.join(_KV_OF_WEIGHTS)})(?:-kv-(bf16|fp8))?")

HOW = "MODEL@GPU[xTP][/BACKEND][/DTYPE], such as qwen3-32b@h100x2 or llama-3.1-70b@h100x4/sglang/fp8"


class EngineNameError(ValueError):
    """Nothing in the table has this name; the message says what comes close."""


@dataclass(frozen=True)
class EngineName:
    """A name, taken apart.

    Attributes:
        model: such as qwen3-32b.
        gpu: such as h100.
        tensor_parallel: GPUs that share a replica.
        backend: vllm, sglang or trtllm.
        weights_dtype: bf16, fp8, nvfp4 or mxfp4.
        kv_dtype: bf16 or fp8.
        kv_is_given: whether the name said the KV dtype; else it is what the weights' dtype stands for.
    """

    model: str
    gpu: str
    tensor_parallel: int = 1
    backend: str = "vllm"
    weights_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    kv_is_given: bool = True

    @classmethod
    def parse(cls, text: str) -> EngineName:
        """Take a name apart, in any case and with backend and dtype in either order.

        Raises:
            EngineNameError: it has another shape.
        """
        model, at, rest = text.strip().lower().partition("@")
        size, *parts = rest.split("/")
        match = _SIZE.fullmatch(size)
        if not (at and model and match):
            raise EngineNameError(f"engine {text!r} is not {HOW}")
        backends = [part for part in parts if part in BACKENDS]
        dtypes = [found for part in parts if (found := _DTYPES.fullmatch(part))]
        if len(backends) > 1 or len(dtypes) > 1 or len(backends) + len(dtypes) != len(parts):
            wrong = next((part for part in parts if part not in BACKENDS and not _DTYPES.fullmatch(part)), parts[-1])
            raise EngineNameError(
                f"engine {text!r}: cannot read {wrong!r}; expected at most one of {', '.join(BACKENDS)} and one of "
                f"{', '.join(_KV_OF_WEIGHTS)}, the latter with or without -kv-bf16 or -kv-fp8"
            )
        weights, kv = dtypes[0].groups() if dtypes else (_NATIVE.get(model, "bf16"), None)
        tensor_parallel = int(match[2] or 1)
        return cls(
            model,
            match[1],
            tensor_parallel,
            backends[0] if backends else "vllm",
            weights,
            kv or _KV_OF_WEIGHTS[weights],
            kv is not None,
        )

    def __str__(self) -> str:
        """The name without what goes without saying."""
        size = f"x{self.tensor_parallel}" if self.tensor_parallel > 1 else ""
        backend = "" if self.backend == "vllm" else f"/{self.backend}"
        dtype = self.weights_dtype
        if self.kv_dtype != _KV_OF_WEIGHTS[dtype]:
            dtype += f"-kv-{self.kv_dtype}"
        return f"{self.model}@{self.gpu}{size}{backend}" + (
            "" if dtype == _NATIVE.get(self.model, "bf16") else f"/{dtype}"
        )
