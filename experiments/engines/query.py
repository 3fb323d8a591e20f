"""First step: ask aiconfigurator-core what iterations take, one file of samples for each engine.

Runs in an environment of its own, since the package needs half a gigabyte and this project does not need the package:

    python3.11 -m venv VENV && VENV/bin/pip install aiconfigurator-core==0.12.0 -e .
    VENV/bin/python -m experiments.engines.query --out SAMPLES

Every engine that gives no samples is named in SAMPLES/left_out.csv with the reason. Nothing goes to the network: models
are looked up in the package's own list first.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engines.combinations import GPUS, MODELS, Combination, combinations, limits_of
from experiments.engines.iterations import features_of, iterations
from infermax_gym.profiler import Batch, Limits

PACKAGE = "aiconfigurator-core"
PINNED = "0.12.0"
_COUNT = 1_200
_FEWEST_KV_TOKENS = 16_384
_DTYPES = {"bf16": "bfloat16", "fp8": "fp8_static", "nvfp4": "nvfp4"}  # of weights
_KV_DTYPES = {"bf16": "bfloat16", "fp8": "fp8"}
_GIB = 1 << 30


class LeftOut(Exception):  # noqa: N818 - not an error: the reason why an engine is not in the table
    """An engine has no samples; the message says why."""


def main() -> None:
    """Query every combination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the samples")
    parser.add_argument("--gpu", choices=list(GPUS), help="only engines of this GPU")
    options = parser.parse_args()
    if version(PACKAGE) != PINNED:
        raise SystemExit(f"needs {PACKAGE}=={PINNED}, found {version(PACKAGE)}")
    logging.disable(logging.WARNING)
    options.out.mkdir(parents=True, exist_ok=True)
    left_out = []
    for one in combinations():
        if options.gpu not in (None, one.gpu):
            continue
        try:
            samples = sample(one, options.out)
        except LeftOut as reason:
            left_out.append({"engine": one.label, "reason": str(reason)})
            continue
        np.savez_compressed(options.out / f"{one.label}.npz", **samples)
        print(one.label, samples["kv_tokens"], flush=True)
    with open(options.out / f"left_out_{options.gpu or 'all'}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["engine", "reason"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(left_out)


def sample(one: Combination, folder: Path) -> dict[str, Any]:
    """Features, seconds and limits of an engine.

    Raises:
        LeftOut: the weights leave no memory, or the package has no data for an operator.
    """
    from aiconfigurator_core.sdk.errors import PerfDataNotAvailableError
    from aiconfigurator_core.sdk.rust_engine_step import RustForwardPassPerfModel

    sizes = limits_of(one.gpu, one.backend)
    model = _path(one.model, folder)
    parallel = {"tp_size": one.tp}
    if MODELS[one.model].is_moe:
        parallel |= {"moe_tp_size": one.tp, "moe_ep_size": 1}
    kv_tokens = _kv_tokens(one, model, parallel, sizes.max_num_batched_tokens)
    limits = Limits(sizes.max_num_batched_tokens, sizes.max_num_seqs, kv_tokens)
    config: dict[str, Any] = {
        "schema_version": 1,
        "model_name": model,
        "system_name": GPUS[one.gpu][0],
        "backend": one.backend,
        "backend_version": "current",
        "pp_size": 1,
        **parallel,
    }
    if one.weights in _DTYPES and one.weights != "bf16":
        config |= {"weight_dtype": _DTYPES[one.weights]}
    config |= {"kv_cache_dtype": _KV_DTYPES[one.kv]}
    batches = iterations(limits, _COUNT)
    try:
        timer = RustForwardPassPerfModel.from_native(config)
        seconds = [1e-3 * float(timer.estimate_forward_pass_time_ms(_scheduled(batch))) for batch in batches]
    except PerfDataNotAvailableError as error:
        raise LeftOut(_short(str(error))) from None
    except ValueError as error:
        if "unsupported model" not in str(error) and "not divisible" not in str(error):
            raise
        raise LeftOut(_short(str(error))) from None
    return {
        "features": features_of(batches),
        "seconds": np.array(seconds),
        "kv_tokens": kv_tokens,
        "version": _version_of(one),
        "combination": json.dumps(vars(one)),
    }


def _scheduled(batch: Batch) -> dict[str, dict[str, int]]:
    decodes, prefills = batch.num_decodes, batch.num_prefills
    return {
        "scheduled_requests": {
            "num_prefill_requests": prefills,
            "sum_prefill_tokens": prefills * batch.chunk_tokens,
            "sum_prefill_kv_tokens": prefills * batch.prefill_context_tokens,
            "num_decode_requests": decodes,
            "sum_decode_kv_tokens": decodes * (batch.decode_context_tokens + 1),
        }
    }


def _path(model: str, folder: Path) -> str:
    """The model's name where the package lists it, else a folder with the package's own copy of its configuration."""
    import aiconfigurator_core
    from aiconfigurator_core.sdk.common import DefaultHFModels

    path = MODELS[model].path
    if path in DefaultHFModels:
        return path
    copy = Path(aiconfigurator_core.__file__).parent / "model_configs" / f"{path.replace('/', '--')}_config.json"
    if not copy.exists():
        raise LeftOut(f"{PACKAGE} knows no {path}")
    own = folder / "configs" / model
    own.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(copy, own / "config.json")
    return str(own)


def _kv_tokens(one: Combination, model: str, parallel: dict[str, int], budget: int) -> int:
    """KV tokens that the backend's defaults leave after the weights."""
    from aiconfigurator_core.sdk.memory import KVCacheEstimator

    dtypes = {"kvcache_quant_mode": _KV_DTYPES[one.kv]}
    if one.weights in _DTYPES:
        dtypes |= {"gemm_quant_mode": _DTYPES[one.weights]}
    request = KVCacheEstimator.from_request(
        model, GPUS[one.gpu][0], one.backend, "current",
        max_num_tokens=budget, max_batch_size=256, **parallel, **dtypes,
    )  # fmt: skip
    parts = request.breakdown
    capacity, taken = parts["gpu_memory_capacity_bytes"], parts["non_kv_bytes"]
    if one.backend == "vllm":  # gpu_memory_utilization
        left = (0.90 if one.gpu == "a100" else 0.92) * capacity - taken
    elif one.backend == "trtllm":  # free_gpu_memory_fraction
        left = 0.9 * (capacity - taken)
    else:  # what mem_fraction_static resolves to; activations and graphs live in the rest
        graphs = 512 if one.tp >= 4 or one.gpu == "b200" else 256
        rest = (512 + 1.5 * max(budget, 2_048) + 2 * graphs + 128 * one.tp) * 2**20
        left = capacity - rest - parts["weights_bytes"] - parts["comm_overhead_bytes"]
    tokens = int(parts["tokens_from_kv_bytes"](left)) if left > 0.0 else 0
    if tokens < _FEWEST_KV_TOKENS:
        weights = parts["weights_bytes"] / _GIB
        raise LeftOut(f"{weights:.0f} GiB of weights on each GPU leave {tokens} KV tokens")
    return tokens


def _version_of(one: Combination) -> str:
    from aiconfigurator_core.sdk.engine import _literal_backend_version

    return str(_literal_backend_version(GPUS[one.gpu][0], one.backend, "current", None, None))


def _short(message: str) -> str:
    """Without the paths of this machine."""
    return message.split(" at /")[0].split(": tried lane_order")[0].replace("perf database error: ", "")


if __name__ == "__main__":
    main()
