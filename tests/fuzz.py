"""Hostile files and options: each is accepted, or refused in one line, soon and in little memory.

    TMPDIR=/dev/shm python -m tests.fuzz --inputs 100000 --seed 0

Inputs are mutations of small valid files: bytes flipped, cut, repeated and inserted, numbers and words replaced by
hostile ones, JSON values replaced by others. Options are drawn among good and bad ones. By hand with many inputs, in
memory rather than on a disk; the tests run a short round. `tests.fuzz_coverage` lets atheris look for new paths.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import math
import random
import re
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_S, MOST_COMMAND_S = 5.0, 100.0  # of processor time; a command may have to compile
MOST_BYTES = 2 << 30

_OWN = (
    b"arrival_s,num_prompt_tokens,num_output_tokens,tenant,priority\n" + b"0.0,12,4,a,0\n0.5,100,7,b,1\n1.5,3,1,a,0\n"
)
_AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.03,3,8\n"
_BURST = (
    b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
)
_MOONCAKE = b'{"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [1, 2]}\n' * 3
_LOG = b"queued_s,num_prompt_tokens,num_output_tokens,scheduled_s,first_token_s,last_token_s\n0,5,3,0.1,0.2,0.5\n" * 1
_INSTANCE = b'{"requests": [{"arrival_s": 0.0, "num_prompt_tokens": 2, "num_output_tokens": 6}], "kv_tokens": 20, \
"max_num_batched_tokens": 512, "max_num_seqs": 256, "block_size": 1, "cost": "llama2-7b-a100"}'
_FLEET = b'[{"count": 2, "cost": "llama2-7b-a100", "kv_tokens": 100000, "policy": "vllm"}]'
_HF = b'{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, \
"num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000, "torch_dtype": "float16"}'
_MEASURED = (
    b"prefill_chunk_tokens,prefill_context_tokens,decode_context_tokens,seconds\n512 64,0 0,100 7,0.03\n,,5,0.01\n"
)
_BENCH = b'{"input_lens": [5, 7], "output_lens": [3, 2], "start_times": [0.0, 0.5], "ttfts": [0.1, 0.2], \
"itls": [[0.1, 0.1], [0.2]], "errors": ["", ""], "total_input_tokens": 12, "request_throughput": 1.0}'
_STEPS = (
    b'{"schema": 1, "origin_unix_s": 5.0, "policy": "vllm", "num_blocks": 100}\n'
    b'{"step": 1, "start_s": 0.1, "end_s": 0.2, "seconds": 0.1, "batch": [[0, 5, 0, 1], [1, 1, 7]], "preempted": [], '
    b'"waiting": 0, "running": 1, "free_blocks": 9}\n'
    b'{"request": 0, "arrival_s": 0.05, "num_prompt_tokens": 5, "num_output_tokens": 3, "first_scheduled_s": 0.1, '
    b'"first_token_s": 0.2, "finish_s": 0.4, "num_preemptions": 0, "priority": 0, "status": "finished"}\n'
)
_PROFILE = {
    "dense": b"layer,tokens,time_us\nmlp,1,10\nmlp,8,20\nlm_head,1,5\nlm_head,8,6\n",
    "per_sequence": b"layer,sequences,time_us\nsampler,1,10\nsampler,8,20\n",
    "attention": b"prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,9,3\n0,0,2,9,4\n8,0,0,0,5\n8,0,1,9,7\n",
    "moe": b"tokens,activated_experts,time_us\n1,2,10\n4,2,11\n4,8,20\n",
}
_SWEEP = b"policies: [vllm]\nworkloads: [{source: azure-conv, first: 5}]\nloads: [2.0, {concurrency: 3}]\nseeds: 2\n"
_REPORT = (
    b'{"schema": 1, "config": {"workload": "azure-conv", "skip": 0, "first": 5, "time_scale": 1.0, '
    b'"rate": null, "num_requests": 5, "span_s": 0.824, "mean_rate_per_s": 4.85, "cost": '
    b'"llama2-7b-a100", "kv_tokens": 100000, "block_size": 16, "max_num_batched_tokens": 512, '
    b'"max_num_seqs": 256, "max_model_len": null, "max_output_tokens": null, "num_host_kv_tokens": '
    b'1000000, "swap_tokens_per_s": 47700.0, "prefix_caching": false, "empty_blocks_first": false, '
    b'"async_scheduling": false, "slo": null, "by": null, "policies": ["vllm"], "agents": [], "seeds": '
    b'1}, "policies": {"vllm": {"information": "none", "num_requests": 5, "num_finished": 5, '
    b'"num_rejected": 0, "makespan_s": 3.0, "busy_s": 3.0, "num_iterations": 580, "num_preemptions": 0, '
    b'"num_recomputed_tokens": 0, "num_guarded_iterations": 0, "ttft_s": {"mean": 0.134, "p50": 0.0893, '
    b'"p90": 0.282, "p99": 0.396, "max": 0.409}, "tpot_s": {"mean": 0.00563, "p50": 0.00549, "p90": '
    b'0.00703, "p99": 0.00794, "max": 0.00804}, "itl_s": {"mean": 0.00537, "p50": 0.00466, "p90": '
    b'0.00501, "p99": 0.0481, "max": 0.0598}, "latency_s": {"mean": 1.57, "p50": 2.17, "p90": 2.29, '
    b'"p99": 2.31, "max": 2.31}, "throughput_tokens_per_s": 449.0, "throughput_requests_per_s": 1.67, '
    b'"goodput_per_s": null, "slo_attainment": null, "kv_utilization": 0.0482, "prefix_hit_rate": null, '
    b'"gpu_cost_usd": null, "wall_s": 0.000592}}}'
)


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: what is called with the path of a file.
        refusals: what it may raise, in one line.
        seeds: valid files.
        suffix: of the file's name.
    """

    read: Callable[[Path], Any]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    suffix: str = ".csv"


def targets() -> dict[str, Target]:
    """Every reader of files."""
    from infermax_gym.baselines.optimum.instance import InstanceError, load_instance
    from infermax_gym.cli.errors import InputError
    from infermax_gym.cli.fleet_file import read_fleet
    from infermax_gym.cli.inputs import EngineOptions
    from infermax_gym.cli.report import report
    from infermax_gym.cli.sweep_config import read_config
    from infermax_gym.cost import COSTS, CostModelError, load_cost_model
    from infermax_gym.cost.measured import MeasuredError, read_measured
    from infermax_gym.cost.profiles import ProfileError, read_profile
    from infermax_gym.cost.roofline.hf_config import shape_from_config
    from infermax_gym.cost.roofline.shapes import ShapeError
    from infermax_gym.workload import WorkloadError, read_workload
    from infermax_gym.workload.request_log import read_request_log
    from infermax_gym.workload.step_log import read_steps

    def log(path: Path) -> None:
        folder = path.parent / "log"
        folder.mkdir(exist_ok=True)
        (folder / "steps-000001.jsonl").write_bytes(path.read_bytes())
        read_steps(folder)

    def profile(path: Path) -> None:
        """The file takes the place of the one whose header it has most of."""
        data = path.read_bytes()
        instead = next((kind for kind, seed in _PROFILE.items() if data[:9] == seed[:9]), "dense")
        for kind, seed in _PROFILE.items():
            path.with_name(f"p_{kind}.csv").write_bytes(data if kind == instead else seed)
        read_profile(path.with_name("p"))

    def show(path: Path) -> None:
        folder = path.parent / "report"
        folder.mkdir(exist_ok=True)
        (folder / "summary.json").write_bytes(path.read_bytes())
        with contextlib.redirect_stdout(io.StringIO()):
            report(folder)

    traces = (_OWN, _AZURE, _BURST, _MOONCAKE, _BENCH, b"[" + _MOONCAKE.split(b"\n")[0] + b"]", gzip.compress(_OWN))
    cost = COSTS["llama2-7b-a100"].to_json().encode()
    found = {
        "trace": Target(read_workload, (WorkloadError,), traces),
        "request log": Target(read_request_log, (WorkloadError,), (_LOG, _BENCH, gzip.compress(_LOG))),
        "cost": Target(load_cost_model, (CostModelError,), (cost,), ".json"),
        "model": Target(shape_from_config, (ShapeError,), (_HF,), ".json"),
        "measured": Target(read_measured, (MeasuredError,), (_MEASURED,)),
        "step log": Target(log, (WorkloadError,), (_STEPS,), ".jsonl"),
        "profile": Target(profile, (ProfileError,), tuple(_PROFILE.values())),
        "instance": Target(load_instance, (InstanceError,), (_INSTANCE,), ".json"),
        "fleet": Target(lambda path: read_fleet(str(path), EngineOptions()), (InputError,), (_FLEET,), ".json"),
        "sweep": Target(read_config, (InputError,), (_SWEEP,), ".yaml"),
        "report": Target(show, (InputError,), (_REPORT,), ".json"),
    }
    with contextlib.suppress(ImportError):
        from infermax_gym.agents import AgentError, load_agent
        from infermax_gym.agents.cards import ZOO

        smallest = min(ZOO.glob("*.safetensors"), key=lambda path: path.stat().st_size)
        found["agent"] = Target(load_agent, (AgentError,), (smallest.read_bytes(),), ".safetensors")
    return found


_HOSTILE = [
    b"-1", b"0", b"1e999", b"-1e999", b"nan", b"inf", b"9" * 30, b"9" * 5000, b"1.5", b"1_000", b"0x10", b"true",
    b"null",
    b"", b" ", b'"', b"'", b"[]", b"{}", b"[" * 2000, b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\n", b",",
    b"\n\n,\n",
    b"../../etc/passwd", b"%s%n", b"[red]x[/red]", b"[/]", b"<script>", b"*a", b"&a [*a]", b"!!python/name:os.system",
    b"9223372036854775807", b"-9223372036854775808", b"1e-320", b"\xe2\x80\xae", b"=1+1", b"a" * 10_000,
]  # fmt: skip
_WORD = re.compile(rb"[-+.\w]+")


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """A hostile file after a valid one."""
    data = seed
    for _ in range(rng.choice([1, 1, 2, 4])):
        kind = rng.randrange(7)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + rng.choice(_HOSTILE) + data[at:]
        elif kind == 3:
            end = min(len(data), at + rng.randrange(1, 40))
            data = data[:at] + data[at:end] * rng.choice([0, 2, 50]) + data[end:]
        elif words := list(_WORD.finditer(data)):
            word = rng.choice(words)
            # Plain numbers pass the first checks, and reach what lies behind them.
            other = str(rng.choice([rng.randrange(100), rng.random()])).encode() if kind == 4 else rng.choice(_HOSTILE)
            data = data[: word.start()] + other + data[word.end() :]
    return data


_OPTIONS: dict[str, list[str]] = {
    "--workload": ["azure-conv", "azure-code", "", "..", "nothing", "uniform:1,2", "uniform:", "/dev/null"],
    "--first": ["1", "3", "0", "-1", "x", "1e3", "9" * 30],
    "--skip": ["0", "-1", "9" * 30], "--rate": ["2", "0", "nan", "inf", "-1", "1e308", "1e-308"],
    "--time-scale": ["1", "0", "nan", "1e308"], "--concurrency": ["1", "0", "9" * 20],
    "--think-time": ["0", "-1", "nan"],
    "--ramp-up": ["0", "-1", "inf"], "--cost": ["llama2-7b-a100", "x@y", "@", "", "/", "nothing.json"],
    "--kv-tokens": ["1", "5000", "0", "9" * 19, "9" * 30], "--block-size": ["1", "16", "0", "9" * 19],
    "--max-num-batched-tokens": ["1", "512", "0", "9" * 19], "--max-num-seqs": ["1", "0", "9" * 12],
    "--max-model-len": ["1", "100", "9" * 19], "--max-output-tokens": ["1", "100000"],
    "--policies": ["vllm", "vllm,srf", "", ",", "vllm+", "vllm+x=1", "vllm+max_chunk=0", "os:system", ":", "[/]"],
    "--agent": ["generalist", "", "/dev/null", ".."], "--seeds": ["1", "0", "x"],
    "--slo": ["ttft=1", "ttft=-1", "ttft=", "x=1", "ttft=1,ttft=2", ""], "--by": ["tenant", "x", ""],
    "--replicas": ["1", "2", "0"], "--routers": ["round-robin", "x", ""], "--fleet": ["/dev/null", "..", ""],
    "--migrate": ["defrag", "x", ""], "--migrate-period": ["1", "0", "nan"], "--staleness": ["1", "nan"],
    "--out": ["/dev/null", "/dev/null/x", "\x00"], "--jobs": ["0", "x"],
}  # fmt: skip


_COMMANDS = (["bench", "--policies", "vllm"], ["simulate", "--policy", "vllm"], ["bound", "--objective", "latency"])


def draw_options(rng: random.Random) -> list[str]:
    """A command line of `bench` or `simulate`."""
    first = ["--workload", "azure-conv", "--first", "3"]
    options = [
        part for name in rng.sample(list(_OPTIONS), rng.randrange(1, 5)) for part in (name, rng.choice(_OPTIONS[name]))
    ]
    command = rng.choice(
        [["bench", "--policies", "vllm"], ["simulate", "--policy", "vllm"], ["bound", "--objective", "latency"]]
    )
    return [*command, *first, *options]


def _too_long(signum: int, frame: object) -> None:
    raise TimeoutError("took too long")


def attempt(call: Callable[[], Any], refusals: tuple[type[Exception], ...], most_s: float = MOST_S) -> str:
    """`accepted` or `refused`; AssertionError on anything else."""
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, most_s)
    try:
        call()
    except refusals as error:
        assert "\n" not in str(error) and len(str(error)) < 20_000, f"not one line: {str(error)[:300]!r}"
        return "refused"
    except Exception:
        raise AssertionError(traceback.format_exc()) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
    return "accepted"


_NO_ERROR = ("infermax: warning: ", "infermax: compiling ")


def command_line(arguments: list[str]) -> str:
    """Run a command line; how it ended."""
    from infermax_gym.cli import main

    said = io.StringIO()

    def call() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main(arguments)
        assert code in (0, 2), code
        errors = [line for line in said.getvalue().splitlines() if not line.startswith(_NO_ERROR)]
        assert len(errors) == (1 if code == 2 else 0), said.getvalue()
        if code == 2:
            raise _RefusedError

    return attempt(call, (_RefusedError,), MOST_COMMAND_S)


class _RefusedError(Exception):
    pass


def run_round(
    num_inputs: int, seed: int, folder: Path, kinds: list[str] | None = None, seconds: float = math.inf
) -> tuple[Counter[str], list[str]]:
    """Counts by reader and outcome, and the inputs that did what none may."""
    rng, count, faults = random.Random(seed), Counter[str](), list[str]()
    known = targets()
    kinds = kinds or [*known, "options"]
    began = time.monotonic()
    for _ in range(num_inputs):
        if time.monotonic() - began > seconds:
            break
        kind = rng.choice(kinds)
        try:
            if kind == "options":
                arguments = draw_options(rng)
                what = repr(arguments)
                outcome = command_line(arguments)
            else:
                target = known[kind]
                data = mutate(rng.choice(target.seeds), rng)
                what = repr(data[:2000])
                path = folder / f"input{target.suffix}"
                path.write_bytes(data)
                outcome = attempt(lambda t=target, p=path: t.read(p), target.refusals)  # type: ignore[misc]
        except AssertionError as error:
            outcome = "FAULT"
            faults.append(f"{kind}: {what}\n{error}")
        count[f"{kind}: {outcome}"] += 1
    return count, faults


def main() -> None:
    """Run inputs and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        count, faults = run_round(
            options.inputs,
            options.seed,
            Path(name),
            options.kinds.split(",") if options.kinds else None,
            options.seconds,
        )
    for fault in {re.sub(r"0x[0-9a-f]+", "", fault.split("\n", 1)[1])[-400:]: fault for fault in faults}.values():
        print(fault, end="\n\n")
    for what, times in sorted(count.items()):
        print(f"{times:9,} {what}")
    print(f"{sum(count.values()):9,} inputs in {time.monotonic() - began:.0f} s; {len(faults)} faults")


if __name__ == "__main__":
    main()
