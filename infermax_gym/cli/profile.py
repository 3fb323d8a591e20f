"""`infermax profile`: measure what iterations of a model cost on this machine."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError


class Device(str, Enum):
    """Where the layers run."""

    cuda = "cuda"
    cpu = "cpu"


def profile(
    model: Annotated[str, typer.Option(metavar="NAME|CONFIG.json", help="A known model, or its config.json.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.csv", help="Where measured batches go.")],
    device: Annotated[Device, typer.Option(help="Where the layers run.")] = Device.cuda,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a batch.")] = 8_192,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Most requests of a batch.")] = 256,
    kv_tokens: Annotated[int, typer.Option(min=1, help="KV memory in tokens, at most what is free.")] = 400_000,
    num_random: Annotated[int, typer.Option("--random", min=0, help="Batches of random sizes besides the grid.")] = 48,
    seconds_per_batch: Annotated[float, typer.Option(min=0.0, help="Time for the repeats of a batch.")] = 0.4,
) -> None:
    """Run a dense model's layers with random weights on a designed set of batches, and write what each takes."""
    try:
        from infermax_gym.profiler import Limits, ShapeError, dense_shapes, design
        from infermax_gym.profiler import measure as measuring
        from infermax_gym.profiler.shapes import shape_from_config

        try:
            known = dense_shapes().get(model)
            if known is None and not model.endswith(".json"):
                raise InputError(f"--model {model!r} is neither a config.json nor one of {', '.join(dense_shapes())}")
            shape = known or shape_from_config(model)
            where = measuring.device_of(device.value)
            num_kv_tokens = measuring.kv_tokens_on(where, shape, max_num_batched_tokens, kv_tokens)
        except ShapeError as error:
            raise InputError(str(error)) from None
    except ModuleNotFoundError as error:
        raise InputError(f"infermax profile needs {error.name}: pip install 'infermax-gym[agents]'") from None
    batches = design(Limits(max_num_batched_tokens, max_num_seqs, num_kv_tokens), num_random)
    if not batches:
        raise InputError("no batch fits: raise --max-num-batched-tokens, --max-num-seqs or --kv-tokens")
    output.writable_file(out)
    found: list[measuring.Measurement] = []
    runs = measuring.measure(shape, batches, where, num_kv_tokens, seconds_per_batch=seconds_per_batch)
    screen = output.progress_console()
    try:
        found.extend(track(runs, f"profiling {shape.name}", len(batches), console=screen, transient=True))
    finally:  # what was measured before an interrupt is kept
        if found:
            output.write_text(out, measuring.as_csv(found))
            description = measuring.describe(shape, where, num_kv_tokens)
            output.write_text(out.with_suffix(".json"), output.to_json(description) + "\n")
    print(f"{len(found)} batches of {shape.name} on {device.value}: {out}")
