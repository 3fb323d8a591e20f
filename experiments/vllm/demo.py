"""A real vLLM server with a tiny random model under several schedulers, beside what the simulator predicts.

`python -m experiments.vllm.demo [--pairs N] [--requests N]`, in an environment with vllm (`make demo-vllm`). Servers
listen on 127.0.0.1 and take turns, so that what else the machine does falls on all of them alike. The cost of an
iteration is fitted to the steps of the FCFS runs alone; each scheduler is then simulated with it. Compare ratios to
FCFS: seconds of a shared machine mean little.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "torch_dtype": "float32",
}
NUM_BLOCKS, BLOCK_SIZE, BUDGET, MAX_NUM_SEQS = 150, 32, 256, 64
SCHEDULERS: dict[str, dict[str, Any]] = {
    "fcfs": {},
    "spf-headroom": {"policy": "spf-headroom", "knobs": {"headroom_tokens": 5.0}},
    "conv-evolved": {"agent": "conv-evolved"},
}
_START_S = 300.0


def requests_of(count: int, seconds: float) -> list[tuple[float, int, int]]:
    """Arrival in seconds, prompt and output tokens."""
    from infermax_gym.workload import make_workload

    drawn = make_workload("azure-conv", count, seed=3)
    arrival = drawn.arrival_s * (seconds / drawn.arrival_s[-1])
    prompt, output = np.minimum(drawn.num_prompt_tokens, 800), np.minimum(drawn.num_output_tokens, 120)
    return [(float(a), int(p), int(o)) for a, p, o in zip(arrival, prompt, output, strict=True)]


def serve(settings: dict[str, Any], folder: Path, requests: list[tuple[float, int, int]]) -> None:
    """Start a server, send it the requests, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {
        "host": "127.0.0.1",
        "port": port,
        "model": folder.parent / "model",
        "load-format": "dummy",
        "block-size": BLOCK_SIZE,
        "num-gpu-blocks-override": NUM_BLOCKS + 1,
        "max-num-batched-tokens": BUDGET,
        "max-num-seqs": MAX_NUM_SEQS,
        "max-model-len": 4096,
        "scheduler-cls": "infermax_gym.vllm.PolicyScheduler",
        "additional-config": json.dumps({"infermax": {**settings, "log": str(folder)}}),
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    command += ["--skip-tokenizer-init", "--enforce-eager", "--no-enable-prefix-caching"]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **quiet, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with (folder.parent / f"{folder.name}.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(server, port)
            _send(port, str(folder.parent / "model"), requests)
        finally:
            server.terminate()
            server.wait(60)


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError("the server did not start")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(1.0)
    raise RuntimeError(f"the server did not answer within {_START_S:g} s")


def _send(port: int, model: str, requests: list[tuple[float, int, int]]) -> None:
    start = time.monotonic()

    def one(arrival_s: float, prompt: int, output: int) -> None:
        time.sleep(max(0.0, start + arrival_s - time.monotonic()))
        body = {
            "model": model,
            "prompt": [1 + i % 500 for i in range(prompt)],
            "max_tokens": output,
            "ignore_eos": True,
            "detokenize": False,
        }
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        connection.getresponse().read()

    threads = [threading.Thread(target=one, args=request) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def real_figures(folder: Path) -> dict[str, float]:
    """Means and the tail, from a step log."""
    from infermax_gym.workload.request_log import read_request_log

    log = read_request_log(folder)
    return {
        "ttft_s": float(log.ttft_s.mean()),
        "latency_s": float(log.latency_s.mean()),
        "p99_s": float(np.quantile(log.latency_s, 0.99)),
    }


def simulated_figures(name: str, folder: Path, cost: Any) -> dict[str, float]:
    """The same of the simulator, for the requests as the server got them."""
    from infermax_gym.engine import EngineConfig

    return simulated_with(
        name, folder, EngineConfig(cost, NUM_BLOCKS * BLOCK_SIZE, BLOCK_SIZE, BUDGET, MAX_NUM_SEQS, 4096)
    )


def simulated_with(name: str, folder: Path, config: Any) -> dict[str, float]:
    """The same for another engine."""
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.engine import simulate
    from infermax_gym.vllm.settings import read_settings
    from infermax_gym.workload.step_log import read_steps

    settings = SCHEDULERS[name]
    policy = read_settings({"infermax": settings}).policy if settings else POLICIES["vllm"]
    assert policy is not None
    result = simulate(read_steps(folder).workload, config, policy)
    return {
        "ttft_s": float(result.ttft_s.mean()),
        "latency_s": float(result.latency_s.mean()),
        "p99_s": float(np.quantile(result.latency_s, 0.99)),
    }


def fitted_cost(folders: list[Path], scratch: Path) -> Any:
    """A cost model from the steps of some runs."""
    from infermax_gym.cost import load_cost_model
    from infermax_gym.workload.step_log import read_steps

    lines: list[str] = []
    for folder in folders:
        read_steps(folder).write_batches(scratch / "some.csv")
        lines += (scratch / "some.csv").read_text().splitlines()[1 if lines else 0 :]
    (scratch / "batches.csv").write_text("\n".join(lines) + "\n")
    fit = ["fit", str(scratch / "batches.csv"), "-o", str(scratch / "cost.json")]
    subprocess.run([sys.executable, "-m", "infermax_gym", *fit], check=True, stdout=sys.stderr)
    return load_cost_model(scratch / "cost.json")


def main() -> None:
    """Run the servers in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="runs of each scheduler")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=25.0, help="from the first arrival to the last")
    parser.add_argument("--out", type=Path, help="keep the step logs of the servers in this new folder")
    options = parser.parse_args()
    requests = requests_of(options.requests, options.seconds)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = options.out or Path(scratch_name)
        scratch.mkdir(parents=True, exist_ok=options.out is None)
        (scratch / "model").mkdir()
        (scratch / "model" / "config.json").write_text(json.dumps(MODEL))
        folders: dict[str, list[Path]] = {name: [] for name in SCHEDULERS}
        for turn in range(options.pairs):
            for name, settings in SCHEDULERS.items():
                folder = scratch / f"{name}-{turn}"
                print(f"serving {options.requests} requests: {name}, run {turn + 1}", file=sys.stderr, flush=True)
                serve(settings, folder, requests)
                folders[name].append(folder)
        cost = fitted_cost(folders["fcfs"], scratch)
        _print(folders, cost)


def _print(folders: dict[str, list[Path]], cost: Any) -> None:
    real = {name: [real_figures(folder) for folder in own] for name, own in folders.items()}
    ours = {name: [simulated_figures(name, folder, cost) for folder in own] for name, own in folders.items()}
    print("scheduler, figure: real [lowest, highest over runs]; simulated; ratio to fcfs real / simulated")
    for name in folders:
        for figure in ("ttft_s", "latency_s", "p99_s"):
            values, predicted = (np.array([run[figure] for run in runs[name]]) for runs in (real, ours))
            ratios = [
                np.mean([run[figure] / base[figure] for run, base in zip(runs[name], runs["fcfs"], strict=True)])
                for runs in (real, ours)
            ]
            print(
                f"{name}, {figure}: {values.mean():.3f} [{values.min():.3f}, {values.max():.3f}]; "
                f"{predicted.mean():.3f}; {ratios[0]:.2f} / {ratios[1]:.2f}"
            )


if __name__ == "__main__":
    main()
