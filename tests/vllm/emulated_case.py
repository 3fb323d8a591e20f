"""The real engine on a virtual clock, without a model, against the simulator.

`python -m tests.vllm.emulated_case HOW [--async-scheduling] [--requests N]` runs where vllm is installed; HOW is `fcfs`
(vLLM's own scheduler), a policy or an agent. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ENGINE, KV_TOKENS, BLOCK_SIZE, BUDGET, MAX_NUM_SEQS, MODEL_LEN = "qwen3-32b@h100x2", 24_000, 16, 512, 64, 4096


def emulated(how: str, asynchronous: bool, num_requests: int, folder: Path) -> dict[str, Any]:
    """Serve a workload both ways; what differs first."""
    from infermax_gym.vllm.model_folder import write_model_folder
    from infermax_gym.vllm.virtual import emulated_engine, serve
    from tests.vllm.engine_case import settings_of, simulated

    emulate = {"engine": ENGINE, "kv_tokens": KV_TOKENS, "clock": "virtual", "async_scheduling": asynchronous}
    settings = {**settings_of(how), "emulate": emulate, "log": str(folder / "log")}
    if "cost" in settings:
        settings["cost"] = ENGINE
    write_model_folder(folder / "model", MODEL_LEN)
    engine = emulated_engine(
        folder / "model",
        settings,
        block_size=BLOCK_SIZE,
        max_num_batched_tokens=BUDGET,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MODEL_LEN,
        enable_prefix_caching=False,
    )
    # numba comes after the engine: in one process both bring an LLVM.
    import numpy as np

    from infermax_gym.cost.engines import find_engine
    from infermax_gym.engine.config import EngineConfig
    from infermax_gym.workload import Workload, make_workload
    from infermax_gym.workload.step_log import read_steps

    drawn = make_workload("azure-conv", num_requests, seed=1)
    workload = Workload(
        drawn.arrival_s * 0.2,
        np.minimum(drawn.num_prompt_tokens, 2000),
        np.minimum(drawn.num_output_tokens, 300),
    )
    config = EngineConfig(
        cost=find_engine(ENGINE).cost,
        num_kv_tokens=KV_TOKENS,
        block_size=BLOCK_SIZE,
        max_num_batched_tokens=BUDGET,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MODEL_LEN,
        max_output_tokens=MODEL_LEN,
        async_scheduling=asynchronous,
    )
    seconds = serve(engine, workload)
    result = simulated(how, workload, config)
    log = read_steps(folder / "log")
    # The log says when an iteration was decided: with asynchronous scheduling, before the one ahead of it ended.
    real = [(tuple((m[0], m[1]) for m in s.batch), s.preempted, s.end_s) for s in log.steps]
    ours = [(i.batch, i.preempted, i.end_s) for i in result.schedule]
    parting = next((i for i, (a, b) in enumerate(zip(real, ours, strict=False)) if a != b), None)
    if parting is not None:
        print(f"iteration {parting}: real {real[parting]}, simulated {ours[parting]}", file=sys.stderr)
    same_times = (log.first_token_s == result.first_token_s - log.origin_s).all() and (
        log.finish_s == result.finish_s - log.origin_s
    ).all()
    return {
        "how": how,
        "async_scheduling": asynchronous,
        "num_iterations": len(real),
        "num_preemptions": sum(len(i[1]) for i in real),
        "seconds": seconds,
        "first_difference": parting if parting is not None or len(real) == len(ours) else len(ours),
        "same_times": bool(same_times),
    }


def main() -> int:
    """Run a case; 1 if anything differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how")
    parser.add_argument("--async-scheduling", action="store_true")
    parser.add_argument("--requests", type=int, default=150)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = emulated(options.how, options.async_scheduling, options.requests, Path(scratch))
    print(json.dumps(record))
    return int(record["first_difference"] is not None or not record["same_times"])


if __name__ == "__main__":
    sys.exit(main())
