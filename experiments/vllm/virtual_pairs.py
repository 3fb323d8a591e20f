"""Six pairs of runs of the real vLLM engine on a virtual clock: what schedulers gain, and what FCFS logs alone predict.

`python -m experiments.vllm.virtual_pairs [--pairs N] [--requests N]`, in an environment with vllm and with
VLLM_ENABLE_V1_MULTIPROCESSING=0. An emulated engine has no noise, so pairs differ by their workloads alone. The cost is
fitted to the step logs of the FCFS runs, and each scheduler is simulated with it on the requests as they were served.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.vllm.comparison import FIGURES, fitted_cost, ratios, real_figures, simulated_figures
from experiments.vllm.demo import SCHEDULERS

ENGINE = "qwen3-32b@h100x2"
SIZES = {"block_size": 16, "max_num_batched_tokens": 512, "max_num_seqs": 64, "max_model_len": 4096}
KV_TOKENS = 24_000


def workload_of(num_requests: int, seed: int) -> Any:
    """Conversations of Azure's trace, as many a second as the engine just holds."""
    from infermax_gym.workload import Workload, make_workload

    drawn = make_workload("azure-conv", num_requests, seed=seed)
    seconds = num_requests / 6.0
    return Workload(
        drawn.arrival_s * (seconds / drawn.arrival_s[-1]),
        np.minimum(drawn.num_prompt_tokens, 2000),
        np.minimum(drawn.num_output_tokens, 400),
    )


def run(settings: dict[str, Any], model: Path, folder: Path, num_requests: int, seed: int) -> None:
    """Serve a workload; its step log goes into the folder."""
    from infermax_gym.vllm.virtual import emulated_engine, serve

    emulate = {"engine": ENGINE, "kv_tokens": KV_TOKENS, "clock": "virtual"}
    given = {**settings, "emulate": emulate, "log": str(folder)}
    engine = emulated_engine(model, given, enable_prefix_caching=False, **SIZES)
    serve(engine, workload_of(num_requests, seed))
    engine.engine_core.shutdown()


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6, choices=range(2, 9))
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    from infermax_gym.vllm.model_folder import write_model_folder

    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        write_model_folder(scratch / "model", SIZES["max_model_len"])
        folders: dict[str, list[Path]] = {name: [] for name in SCHEDULERS}
        for seed in range(options.pairs):
            for name, settings in SCHEDULERS.items():
                folder = scratch / f"{name}-{seed}"
                run(settings, scratch / "model", folder, options.requests, seed)
                folders[name].append(folder)
                print(f"{name}, workload {seed}: {json.dumps(real_figures(folder))}", file=sys.stderr, flush=True)
        from infermax_gym.engine import EngineConfig  # with numba, so after vLLM's engines

        cost = fitted_cost(folders["fcfs"])
        real = {name: [real_figures(folder) for folder in own] for name, own in folders.items()}
        config = replace(EngineConfig(cost, KV_TOKENS), **SIZES)  # type: ignore[arg-type]
        ours = {
            name: [simulated_figures(SCHEDULERS[name], folder, config) for folder in own]
            for name, own in folders.items()
        }
    print("scheduler, figure: ratio to fcfs on the engine, and as predicted; mean over pairs, 95 % interval")
    for name in list(SCHEDULERS)[1:]:
        for figure in FIGURES:
            (mean, half), (predicted, its_half) = ratios(real, name, figure), ratios(ours, name, figure)
            print(f"{name}, {figure}: {mean:.3f} +- {half:.3f}; {predicted:.3f} +- {its_half:.3f}")


if __name__ == "__main__":
    main()
