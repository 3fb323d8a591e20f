"""What the step log of the vLLM plug-in takes per iteration, in CPU time of this process; no vllm needed.

Times `before`, `after` and `updated` around an iteration in which every running request decodes a token, with the file
writes, and compares it with what such an iteration takes on an engine of the table.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from infermax_gym.cost.engines import find_engine
from infermax_gym.vllm.seconds import batch_seconds
from infermax_gym.vllm.steplog import LogFiles, StepLog

ENGINE, CONTEXT, ITERATIONS = "qwen3-32b@h100x2", 1000, 500


def scheduler(num_running: int) -> Any:
    """As much of vLLM's as the log looks at."""
    requests = {
        str(r): SimpleNamespace(
            request_id=str(r),
            arrival_time=0.0,
            num_tokens=CONTEXT + 2,
            num_prompt_tokens=CONTEXT,
            num_output_tokens=2,
            num_output_placeholders=0,
            num_computed_tokens=CONTEXT + 1,
        )
        for r in range(num_running)
    }
    pool = SimpleNamespace(get_num_free_blocks=lambda: 1000)
    return SimpleNamespace(
        requests=requests,
        waiting=[],
        running=list(requests.values()),
        kv_cache_manager=SimpleNamespace(block_pool=pool),
    )


def microseconds(num_running: int, folder: Path) -> float:
    """Median CPU microseconds of an iteration."""
    log = StepLog(LogFiles(folder, 64 << 20, "{}"), time.time, 0.0)
    around = scheduler(num_running)
    tokens = dict.fromkeys(around.requests, 1)
    taken = []
    for _ in range(ITERATIONS):
        start = time.process_time_ns()
        log.before()
        log.after(around, tokens)
        log.updated(around.requests, tokens)
        taken.append((time.process_time_ns() - start) / 1000.0)
    log.close()
    return statistics.median(taken)


def main() -> None:
    """Print a line for each number of running requests."""
    cost = find_engine(ENGINE).cost
    for num_running in (8, 64, 256):
        with tempfile.TemporaryDirectory() as scratch:
            taken = microseconds(num_running, Path(scratch))
        step_s = batch_seconds(cost, num_running, decode_context=num_running * CONTEXT, num_decodes=num_running)
        share = 100.0 * taken / (1e6 * step_s)
        print(f"{num_running} running: {taken:.0f} us an iteration, {share:.2f} % of {1e3 * step_s:.1f} ms on {ENGINE}")


if __name__ == "__main__":
    main()
