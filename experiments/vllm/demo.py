"""A real vLLM server with a tiny random model under several schedulers, beside what the simulator predicts.

`python -m experiments.vllm.demo [--pairs N] [--out DIR]`, in an environment with vllm (`make demo-vllm`);
`--from DIR` prints the table again anywhere. Servers listen on 127.0.0.1 and take turns, so that what else the machine
does falls on all of them alike. Compare ratios to FCFS: seconds of a shared machine mean little (`comparison`).
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

from experiments.vllm.comparison import table

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


def config_of(cost: Any) -> Any:
    """The server as the simulator has it."""
    from infermax_gym.engine import EngineConfig

    return EngineConfig(cost, NUM_BLOCKS * BLOCK_SIZE, BLOCK_SIZE, BUDGET, MAX_NUM_SEQS, 4096)


def kept_runs(folder: Path) -> dict[str, list[Path]]:
    """The step logs that `--out` kept, by scheduler.

    Raises:
        SystemExit: there are none, or not as many of each; one line.
    """
    runs = {name: sorted(folder.glob(f"{name}-[0-9]")) for name in SCHEDULERS}
    turns = {len(own) for own in runs.values()}
    if len(turns) > 1 or turns == {0}:
        raise SystemExit(f"{folder}: expected as many runs of each of {', '.join(SCHEDULERS)}, such as fcfs-0")
    return runs


def main() -> None:
    """Run the servers in turn and print the table, or print it again from kept step logs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, choices=range(1, 9), help="turns: runs of each scheduler")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=25.0, help="from the first arrival to the last")
    parser.add_argument("--out", type=Path, help="keep the step logs of the servers in this new folder")
    parser.add_argument("--from", dest="kept", type=Path, help="run no server; print the table of step logs kept here")
    options = parser.parse_args()
    if options.kept is not None:
        print(table(SCHEDULERS, kept_runs(options.kept), config_of))
        return
    requests = requests_of(options.requests, options.seconds)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = options.out or Path(scratch_name)
        scratch.mkdir(parents=True, exist_ok=options.out is None)
        (scratch / "model").mkdir()
        (scratch / "model" / "config.json").write_text(json.dumps(MODEL))
        for turn in range(options.pairs):
            for name, settings in SCHEDULERS.items():
                print(f"serving {options.requests} requests: {name}, turn {turn + 1}", file=sys.stderr, flush=True)
                serve(settings, scratch / f"{name}-{turn}", requests)
        print(table(SCHEDULERS, kept_runs(scratch), config_of))


if __name__ == "__main__":
    main()
