"""The table of engines: `table.jsonl`, a line for each, made by experiments/engines; and `prices.json`, by GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infermax_gym.cost.engines.names import EngineName, EngineNameError
from infermax_gym.cost.model import CostModel, Form

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Error:
    """Relative errors on batches that the fit did not see.

    Attributes:
        mape: mean absolute relative error.
        p95: its 95th percentile.
    """

    mape: float
    p95: float


@dataclass(frozen=True)
class Silicon:
    """How the engine's replay compares with end-to-end measurements of real ones.

    Attributes:
        num_rows: measurements.
        tpot_median: median absolute relative error of TPOT.
        tpot_p90: its 90th percentile.
        ttft_median: the same of TTFT.
        ttft_p90: its 90th percentile.
    """

    num_rows: int
    tpot_median: float
    tpot_p90: float
    ttft_median: float
    ttft_p90: float


@dataclass(frozen=True)
class Engine:
    """A model served on GPUs by a backend.

    Attributes:
        name: its shortest name.
        model: the model.
        gpu: the GPU.
        tensor_parallel: GPUs of a replica.
        backend: vllm, sglang or trtllm.
        version: of the backend.
        weights_dtype: of the weights.
        kv_dtype: of the KV cache.
        terms: of its cost model, see `CostModel`.
        min_terms: likewise; a model that has some is not convex.
        price_usd_per_gpu_hour: list price (`prices.json` has its date and source); None where there is none.
        num_kv_tokens: KV memory that the weights leave, in tokens, whole blocks.
        block_size: tokens of a KV block.
        max_num_batched_tokens: the backend's default token budget.
        max_num_seqs: the backend's default for running requests.
        errors: of the fit, by region: all, decode, prefill, mixed.
        silicon: against real engines; None where there are no measurements.
    """

    name: str
    model: str
    gpu: str
    tensor_parallel: int
    backend: str
    version: str
    weights_dtype: str
    kv_dtype: str
    terms: tuple[tuple[Form, ...], ...]
    min_terms: tuple[tuple[Form, ...], ...]
    price_usd_per_gpu_hour: float | None
    num_kv_tokens: int
    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    errors: Mapping[str, Error]
    silicon: Silicon | None

    @cached_property
    def cost(self) -> CostModel:
        """Seconds per iteration."""
        return CostModel(
            name=self.name,
            terms=self.terms,
            num_devices=self.tensor_parallel,
            price_usd_per_device_hour=self.price_usd_per_gpu_hour,
            source=f"fitted to operators measured with {self.backend} {self.version} (aiconfigurator-core 0.12.0)",
            min_terms=self.min_terms,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What it resolves to, as arguments of `EngineConfig`."""
        return {
            "num_kv_tokens": self.num_kv_tokens,
            "block_size": self.block_size,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "max_num_seqs": self.max_num_seqs,
        }


def find_engine(name: str) -> Engine:
    """The engine of a name (docs/costs.md).

    Raises:
        EngineNameError: the name has another shape, or the table lacks it.
    """
    asked = EngineName.parse(name)
    table = engines()
    if str(asked) in table:
        return table[str(asked)]
    if not asked.kv_is_given:  # some backends were measured with one KV dtype only
        key = (asked.model, asked.gpu, asked.tensor_parallel, asked.backend, asked.weights_dtype)
        alike = [one for one in table.values() if key == _key(one)]
        if len(alike) == 1:
            return alike[0]
    raise EngineNameError(f"no engine {name!r} in the table; {_nearest(asked, table)}")


def _key(one: Engine) -> tuple[str, str, int, str, str]:
    return one.model, one.gpu, one.tensor_parallel, one.backend, one.weights_dtype


def _nearest(asked: EngineName, table: Mapping[str, Engine]) -> str:
    """What comes close, from the most telling part to the least."""
    models, gpus = sorted({one.model for one in table.values()}), sorted({one.gpu for one in table.values()})
    for what, value, known in (("model", asked.model, models), ("GPU", asked.gpu, gpus)):
        if value not in known:
            close = get_close_matches(value, known, n=1, cutoff=0.5)
            return f"did you mean {what} {close[0]!r}?" if close else f"{what}s: {', '.join(known)}"
    same = [name for name, one in table.items() if (one.model, one.gpu) == (asked.model, asked.gpu)]
    if not same:
        gpus = sorted({one.gpu for one in table.values() if one.model == asked.model})
        return f"{asked.model} is there on {', '.join(gpus)}"
    close = get_close_matches(str(asked), same, n=1, cutoff=0.0)[0]
    return f"did you mean {close!r}? `infermax list costs --model {asked.model}` shows all"


@cache
def engines() -> Mapping[str, Engine]:
    """Every engine by its shortest name; read once."""
    prices = json.loads((_HERE / "prices.json").read_text(encoding="utf-8"))["usd_per_gpu_hour"]
    lines = (_HERE / "table.jsonl").read_text(encoding="utf-8").splitlines()
    found = [_engine(json.loads(line), prices) for line in lines]
    return MappingProxyType({one.name: one for one in found})


def _tuples(terms: list[list[list[float]]]) -> tuple[tuple[Form, ...], ...]:
    return tuple(tuple(tuple(form) for form in term) for term in terms)


def _engine(row: dict[str, Any], prices: Mapping[str, float | None]) -> Engine:
    name = EngineName(row["model"], row["gpu"], row["tp"], row["backend"], row["weights"], row["kv"])
    return Engine(
        name=str(name),
        model=name.model,
        gpu=name.gpu,
        tensor_parallel=name.tensor_parallel,
        backend=name.backend,
        version=row["version"],
        weights_dtype=name.weights_dtype,
        kv_dtype=name.kv_dtype,
        terms=_tuples(row["terms"]),
        min_terms=_tuples(row["min_terms"]),
        price_usd_per_gpu_hour=prices[row["gpu"]],
        num_kv_tokens=row["kv_tokens"],
        block_size=row["block_size"],
        max_num_batched_tokens=row["max_num_batched_tokens"],
        max_num_seqs=row["max_num_seqs"],
        errors=MappingProxyType({region: Error(*error) for region, error in row["errors"].items()}),
        silicon=None if row["silicon"] is None else Silicon(*row["silicon"]),
    )
