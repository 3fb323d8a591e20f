"""A workload as JSON lines that a benchmark client plays back at the moments of its arrivals.

One request a line, as Mooncake's traces have it and the data set `timed_trace` of `vllm bench serve` reads it:
`{"timestamp": milliseconds, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}`. The client makes the
tokens of a prompt from its hashes, `chunk` tokens each, so every prompt has enough of them.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from infermax_gym.files import write_bytes
from infermax_gym.workload.workload import Workload, WorkloadError

DEFAULT_CHUNK = 512


def write_timed_trace(workload: Workload, path: str | Path) -> list[str]:
    """Write a workload for `vllm bench serve`; returns the flags with which it reads the file.

    Moments, lengths and shared prefixes are kept; priorities, tenants and limits are not. `read_workload` reads the
    file as a Mooncake trace: with its prefixes where a block has 512 tokens, as there.

    Raises:
        WorkloadError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from infermax_gym.workload import make_workload
        >>> write_timed_trace(make_workload("azure-conv", 3, seed=0), tempfile.mktemp())[-2:]
        ['--timed-trace-chunk-hash-size', '512']
    """
    chunk = workload.prefix_block_size or DEFAULT_CHUNK
    unused = itertools.count(int(workload.prefix_blocks.max(initial=-1)) + 1)
    lines = []
    for r in range(len(workload)):
        num_prompt_tokens = int(workload.num_prompt_tokens[r])
        blocks = workload.prefix_blocks[workload.prefix_start[r] : workload.prefix_start[r + 1]]
        hashes = [int(block) for block in blocks[: num_prompt_tokens // chunk]]
        hashes += [next(unused) for _ in range(-(-num_prompt_tokens // chunk) - len(hashes))]
        record = {
            "timestamp": float(workload.arrival_s[r]) * 1000.0,
            "input_length": num_prompt_tokens,
            "output_length": int(workload.num_output_tokens[r]),
            "hash_ids": hashes,
        }
        lines.append(json.dumps(record))
    try:
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be written ({error.strerror})") from None
    flags = ["--dataset-name", "timed_trace", "--dataset-path", str(path), "--timed-trace-sec-multiplier", "0.001"]
    return [*flags, "--timed-trace-chunk-hash-size", str(chunk)]
