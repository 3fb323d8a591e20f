"""`infermax export`: a workload as JSON lines that `vllm bench serve` plays back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from infermax_gym.cli import inputs, options, output
from infermax_gym.cli.errors import InputError


def export(
    workload: options.Workload,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.jsonl", help="Where to write it.")],
    skip: options.Skip = 0,
    first: options.First = None,
    from_s: options.FromS = None,
    to_s: options.ToS = None,
    model: options.Model = None,
    log_type: options.LogType = None,
    time_scale: options.TimeScale = None,
    rate: options.Rate = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws random workloads.")] = 0,
) -> None:
    """Write any workload for vllm bench serve."""
    from infermax_gym.workload import WorkloadError
    from infermax_gym.workload.timed_trace import write_timed_trace

    output.writable_file(out)
    spec = inputs.workload_spec(
        workload, skip, first, time_scale, rate, from_s=from_s, to_s=to_s, model=model, log_type=log_type
    )
    requests = inputs.load(spec, seed)
    try:
        flags = write_timed_trace(requests, out)
    except WorkloadError as error:
        raise InputError(str(error)) from None
    print(shlex.join(["vllm", "bench", "serve", *flags, "--num-prompts", str(len(requests)), "--ignore-eos"]))
