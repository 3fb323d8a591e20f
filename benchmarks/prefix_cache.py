"""What the prefix cache costs: whole replays with and without it, side by side, and requests and blocks per second.

    python benchmarks/prefix_cache.py [--trace PATH] [--json]

One core, best of several repetitions, in seconds of that core's work. `same work` replays requests that share nothing
and find nothing again, so both runs decide the same; elsewhere the cache also changes the schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.engine import PROGRESS, Figure, Say, best, pin, show
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.engine.prefix_tree import prefix_tree
from infermax_gym.workload import Conversations, Joint, LogNormal, Poisson, Workload, load_workload, make_workload

CONFIG = EngineConfig(num_kv_tokens=100_000, max_num_batched_tokens=512)
LARGE = EngineConfig(num_kv_tokens=1_000_000, max_num_batched_tokens=2_048)
SARATHI = POLICIES["sarathi"]


def long_contexts(num_requests: int) -> Workload:
    """Conversations whose prompts are as long as Mooncake's: 16,000 tokens on average, in blocks of 16."""
    conversations = Conversations(mean_turns=3.0, max_tokens=131_072)
    turns = Joint(LogNormal(5_000.0, 1.2, 16, 65_536), LogNormal(350.0, 0.8, 4, 2_000))
    drawn = conversations.sample(np.random.default_rng(0), num_requests, Poisson(0.5), turns)
    return Workload(**drawn, name="long contexts")


def timed(workload: Workload, config: EngineConfig) -> float:
    """Seconds of a whole replay."""
    start = time.process_time()
    simulate(workload, config, SARATHI)
    return time.process_time() - start


def both(group: str, workload: Workload, config: EngineConfig, repetitions: int, say: Say) -> list[Figure]:
    """Replays with the cache off and on, in turns."""
    say(group)
    cached = replace(config, prefix_caching=True)
    result = simulate(workload, cached, SARATHI)
    off_s = on_s = np.inf
    for _ in range(repetitions):
        off_s = min(off_s, timed(workload, config))
        on_s = min(on_s, timed(workload, cached))
    tree_s = best(repetitions, partial(_build_tree, workload))
    return [
        Figure(group, "whole replay, cache off", off_s * 1e3, "ms"),
        Figure(group, "whole replay, cache on", on_s * 1e3, "ms"),
        Figure(group, "of it, the prefix tree of the workload", tree_s * 1e3, "ms"),
        Figure(group, "on over off", on_s / off_s, "times"),
        Figure(group, "requests per second, cache on", len(workload) / on_s, "requests/s"),
        Figure(group, "blocks of their prompts and outputs", _blocks(result) / on_s / 1e6, "M blocks/s"),
        Figure(group, "prefix hit rate", 100.0 * (result.prefix_hit_rate or 0.0), "%"),
    ]


def _build_tree(workload: Workload) -> float:
    start = time.process_time()
    prefix_tree(workload, CONFIG.block_size)
    return time.process_time() - start


def _blocks(result: SimulationResult) -> int:
    tokens = result.workload.num_prompt_tokens + result.workload.num_output_tokens
    return int((tokens[result.finished] // CONFIG.block_size).sum())


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trace", help="also a trace file with prefix hashes, such as Mooncake's")
    parser.add_argument("--repetitions", type=int, default=7, help="of each measurement (default: 7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    pin()
    start = time.perf_counter()
    cases: list[tuple[str, Callable[[], Workload], EngineConfig]] = [
        ("same work: azure-conv, 12,000 requests, x 1.45", _azure, CONFIG),
        ("conversations, 4,000 requests, 100k KV", partial(make_workload, "conversations", 4_000, seed=0), CONFIG),
        ("long contexts, 4,000 requests, 1M KV", partial(long_contexts, 4_000), LARGE),
    ]
    if options.trace:
        cases.append((f"{options.trace.rpartition('/')[2]}, 1M KV", partial(load_workload, options.trace), LARGE))
    figures: list[Figure] = []
    with PROGRESS.status("loading", spinner="line") as status:
        for group, make, config in cases:
            figures += both(group, make(), config, options.repetitions, status.update)
    if options.json:
        document: dict[str, Any] = {"schema": 1, "figures": [asdict(f) for f in figures]}
        print(json.dumps(document, indent=2))
    else:
        show(figures, time.perf_counter() - start)
    return 0


def _azure() -> Workload:
    return load_workload("azure-conv", first=12_000, time_scale=1.45)


if __name__ == "__main__":
    sys.exit(main())
