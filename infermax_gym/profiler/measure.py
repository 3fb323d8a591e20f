"""Timing batches: warm up, time, take the median; and the CSV that a fit reads."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from infermax_gym.cost.features import FEATURE_NAMES
from infermax_gym.profiler.design import Batch
from infermax_gym.profiler.shapes import ModelShape, ShapeError

if TYPE_CHECKING:
    import torch

_RESERVE_BYTES = 4 << 30  # for the library's workspaces
_ACTIVATIONS = 32  # bytes of activations for each token of a batch and each unit of the MLP, a captured graph included


@dataclass(frozen=True)
class Measurement:
    """What a batch took.

    Attributes:
        batch: the batch.
        seconds: median over the repeats.
        spread_s: 90th less 10th percentile of the repeats.
    """

    batch: Batch
    seconds: float
    spread_s: float


def device_of(name: str) -> torch.device:
    """The device of a name.

    Raises:
        ShapeError: there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ShapeError("--device cuda: this machine has no CUDA device that torch can use; try --device cpu")
    return torch.device(name)


def kv_tokens_on(device: torch.device, shape: ModelShape, max_num_batched_tokens: int, most: int) -> int:
    """KV tokens that fit beside the weights and the activations of a batch, at most so many.

    Raises:
        ShapeError: the weights alone do not fit.
    """
    import torch

    if device.type != "cuda":
        return most
    free, _ = torch.cuda.mem_get_info()
    activations = _ACTIVATIONS * max_num_batched_tokens * shape.intermediate_size
    left = free - 2 * shape.num_weights - activations - _RESERVE_BYTES
    if left < 1024 * shape.kv_bytes_per_token:
        needs = 2 * shape.num_weights / 2**30
        raise ShapeError(
            f"model {shape.name!r}: {needs:.1f} GiB of weights leave no KV memory in {free / 2**30:.1f} GiB"
        )
    return min(most, left // shape.kv_bytes_per_token)


def measure(
    shape: ModelShape,
    batches: Sequence[Batch],
    device: torch.device,
    num_kv_tokens: int,
    *,
    num_repeats: int = 11,
    seconds_per_batch: float = 0.4,
) -> Iterator[Measurement]:
    """Run every batch and hand out what it took.

    On CUDA a batch is captured as a graph, as engines do, so that launching its kernels costs nothing, and timed by
    device events; elsewhere by the wall clock.

    Args:
        shape: the model.
        batches: what to run.
        device: where.
        num_kv_tokens: KV memory; every batch must fit.
        num_repeats: timed runs of a batch, fewer where they would exceed ...
        seconds_per_batch: ... so much time, but at least three.
    """
    import torch

    from infermax_gym.profiler.layers import Decoder

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    decoder = Decoder(shape, num_kv_tokens, device, dtype)
    for batch in batches:
        run = _prepared(decoder, batch)
        seconds = _timed(run, device, num_repeats, seconds_per_batch)
        ordered = sorted(seconds)
        low, high = ordered[math.floor(0.1 * (len(ordered) - 1))], ordered[math.ceil(0.9 * (len(ordered) - 1))]
        yield Measurement(batch, statistics.median(seconds), high - low)


def _prepared(decoder: Any, batch: Batch) -> Callable[[], None]:
    """A function that runs the batch once."""
    import torch

    ids, positions = decoder.inputs(batch)
    if ids.device.type != "cuda":
        return lambda: decoder.forward(batch, ids, positions)
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(2):
            decoder.forward(batch, ids, positions)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # the graph's memory is its own
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decoder.forward(batch, ids, positions)
    return graph.replay


def _timed(run: Callable[[], None], device: torch.device, num_repeats: int, seconds: float) -> list[float]:
    """Seconds of each timed run, after two that warm up."""
    import torch

    once = _clock(device)
    run()
    first = once(run)
    count = max(3, min(num_repeats, int(seconds / max(first, 1e-9))))
    found = [once(run) for _ in range(count)]
    if device.type == "cuda":
        torch.cuda.synchronize()
    return found


def _clock(device: torch.device) -> Callable[[Callable[[], None]], float]:
    """How long one call takes, on this device."""
    import torch

    def on_cuda(run: Callable[[], None]) -> float:
        begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    def on_cpu(run: Callable[[], None]) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return on_cuda if device.type == "cuda" else on_cpu


COLUMNS = ("kind", *FEATURE_NAMES, "seconds", "spread_s")
"""Of the CSV."""


def as_csv(found: Sequence[Measurement]) -> str:
    """The CSV: a header, then a line for each batch."""
    lines = [",".join(COLUMNS)]
    for one in found:
        features = ",".join(str(value) for value in one.batch.features)
        lines.append(f"{one.batch.kind},{features},{one.seconds:.6g},{one.spread_s:.3g}")
    return "\n".join(lines) + "\n"


def describe(shape: ModelShape, device: torch.device, num_kv_tokens: int) -> dict[str, Any]:
    """What was measured, where and when: the JSON beside the CSV."""
    import torch

    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {
        "schema": 1,
        "model": {name: value for name, value in asdict(shape).items() if name == "name" or type(value) is int},
        "device": name,
        "dtype": "bfloat16" if device.type == "cuda" else "float32",
        "num_kv_tokens": num_kv_tokens,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "attention": "PyTorch's FlashAttention-2, contiguous KV"
        if device.type == "cuda"
        else "PyTorch's CPU attention",
    }
