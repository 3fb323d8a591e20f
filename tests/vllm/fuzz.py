"""Random cases: a version's real scheduler against the simulator, iteration by iteration.

`python -m tests.vllm.fuzz --cases 100 [--source DIR] [--only NAME]` runs where vllm is installed, or against an
unzipped wheel in DIR; prints one line of JSON. Every case draws an engine, a workload and a way to schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

Case = tuple[str, Any, Any, dict[str, Any] | None]


def own_cases(version: tuple[int, ...]) -> list[Case]:
    """vLLM's own scheduler under its flags: name, policy that the simulator runs, flags, no plug-in."""
    from infermax_gym.baselines.policies import POLICIES
    from tests.vllm.real import Knobs

    full = version >= (0, 19)
    fcfs = POLICIES["vllm" if full else "vllm-0.13"]
    chunk = {"max_chunk": 48, "uncapped_when_alone": version >= (0, 32)}
    priority = POLICIES["vllm-0.13-priority"]
    if full:
        priority = POLICIES["vllm-priority" if version >= (0, 33) else "vllm-0.32-priority"]
    cases: list[Case] = [
        ("own-fcfs", fcfs, Knobs(reserve_full_isl=full), None),
        (
            "own-long-prefill",
            replace(fcfs, **chunk),
            Knobs(reserve_full_isl=full, long_prefill_token_threshold=48),
            None,
        ),
        ("own-priority", priority, Knobs(policy="priority", reserve_full_isl=full), None),
    ]
    if full:
        cases.append(("own-chunk-fit", POLICIES["vllm-0.13"], Knobs(), None))
    if version >= (0, 28):
        knobs = Knobs(reserve_full_isl=True, watermark=0.05)
        cases.append(("own-watermark", replace(fcfs, watermark=0.05), knobs, None))
    return cases


PLUG_IN = (
    *("vllm", "vllm-0.13", "vllm-long-prefill", "vllm-0.13-long-prefill", "vllm-prefill-slots", "vllm-watermark"),
    *("sarathi", "sarathi-2048", "trt-max-utilization", "trt-no-evict"),
    *("shortest-prompt-first", "least-attained-service", "hrrn", "larry", "srf", "srf-histogram"),
    *("fcfs-headroom", "spf-headroom", "spf-aging-headroom", "past-future-hybrid", "spf-past-future"),
    *("edf", "llf", "priority-fcfs", "sjf-oracle", "mc-sf-work-oracle", "a-max"),
    *("conv-evolved", "mixed-evolved", "reasoning-evolved"),
)
"""Policies and evolved agents that the plug-in is tried with."""


CONTROLLERS = {"knobs": (), "generalist": ("preempt",), "informed": ("preempt",), "goodput": ("preempt", "shed")}
"""Controllers that the plug-in is tried with, and what they go without."""


SELECTORS = ("any-engine", "any-engine-goodput")
"""Selectors that the plug-in is tried with, among the policies that vLLM can follow."""


def plug_in_cases() -> list[Case]:
    """The plug-in: name, policy that the simulator runs, no flags, settings."""
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.vllm import as_served
    from infermax_gym.vllm.settings import read_settings
    from tests.vllm.real import Knobs

    cases: list[Case] = []
    for name in PLUG_IN:
        settings: dict[str, Any] = {"policy": name} if name in POLICIES else {"agent": name}
        if name == "llf":
            settings["cost"] = "llama2-7b-a100"
        policy = as_served(read_settings({"infermax": settings}).policy)
        cases.append((name, policy, Knobs(), settings))
    for name, without in CONTROLLERS.items():
        settings = {"agent": name, "cost": "llama2-7b-a100", "without": list(without)}
        cases.append((name, as_served(read_settings({"infermax": settings}).policy), Knobs(), settings))
    for name in SELECTORS:
        settings = {"agent": name, "cost": "llama2-7b-a100"}
        cases.append((name, as_served(read_settings({"infermax": settings}).policy), Knobs(), settings))
    return cases


def simulated(case: Case, workload: Any, config: Any, predicted: Any) -> Any:
    """What the simulator does in a case."""
    from infermax_gym.agents import load_agent
    from infermax_gym.engine import simulate
    from infermax_gym.vllm.choosing import served_selector
    from infermax_gym.vllm.knobs import switched_off

    name, policy, _, _ = case
    if name in SELECTORS:
        selector = load_agent(name).selector
        assert selector is not None
        return served_selector(name, selector).selector.play(workload, config, record_schedule=True)
    if name not in CONTROLLERS:
        return simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    controller = load_agent(name).controller
    assert controller is not None
    controller = replace(controller, weights=switched_off(controller.weights, CONTROLLERS[name]))
    return controller.play(workload, config, predicted=predicted, record_schedule=True, base=policy)


def draw(rng: np.random.Generator, policy: Any, version: tuple[int, ...]) -> tuple[Any, Any]:
    """An engine and a workload that all fit it one by one; prefix caching with shared prompts in every other case."""
    from infermax_gym.cost import COSTS
    from infermax_gym.engine.config import EngineConfig
    from infermax_gym.workload import Workload

    block = int(rng.choice([1, 4, 16, 32]))
    blocks = int(rng.integers(12, 120))
    budget = int(rng.choice([16, 64, 256, 512]))
    if policy.max_num_batched_tokens:
        budget = policy.max_num_batched_tokens
    cached = bool(rng.random() < 0.5)
    if cached and block == 1:
        block = 4
    n = int(rng.integers(5, 60))
    most = block * blocks
    prompt = np.minimum(rng.integers(1, max(2, most // 2), n), 4 * budget)
    output = np.minimum(rng.geometric(1.0 / rng.integers(2, 60), n), most - prompt)
    arrival = np.sort(rng.exponential(rng.choice([0.01, 0.05, 0.5]), n).cumsum() if rng.random() < 0.9 else np.zeros(n))
    if policy.queue_order == 1 and policy.victim_pool == 1:  # vLLM breaks ties of PRIORITY by the text of the name
        arrival += 1e-3 * np.arange(n)
    ttft = np.where(rng.random(n) < 0.5, rng.uniform(0.1, 5.0, n), np.inf)
    workload = Workload(
        arrival,
        prompt,
        np.maximum(output, 1),
        priority=rng.integers(0, 3, n),
        slo_class=rng.integers(0, 2, n),
        slo_class_names=("one", "two"),
        ttft_slo_s=ttft,
        tpot_slo_s=rng.uniform(0.01, 0.1, n),
        **(prefixes(rng, prompt, block) if cached else {}),
    )
    config = EngineConfig(
        cost=COSTS["llama2-7b-a100"],
        num_kv_tokens=most,
        block_size=block,
        max_num_batched_tokens=budget,
        max_num_seqs=min(int(rng.choice([1, 3, 8, 64])), n),  # the simulator runs no more than there are
        max_model_len=1 << 20,
        max_output_tokens=1 << 10,
        prefix_caching=cached,
        empty_blocks_first=version >= (0, 25),
    )
    return config, workload


def prefixes(rng: np.random.Generator, prompt: Any, block: int) -> dict[str, Any]:
    """Prefix blocks of prompts that begin like one of a few others, and go on by themselves."""
    hashes: list[int] = []
    start = [0]
    families = int(rng.integers(1, 5))
    for r, tokens in enumerate(prompt):
        blocks = int(tokens) // block
        shared = int(rng.integers(0, blocks + 1))
        family = int(rng.integers(families))
        hashes += [family * 100_000 + i for i in range(shared)]
        hashes += [10_000_000 + r * 100_000 + i for i in range(blocks - shared)]
        start.append(len(hashes))
    return {"prefix_blocks": np.array(hashes, np.int64), "prefix_start": np.array(start), "prefix_block_size": block}


def difference(
    case: Case, config: Any, workload: Any, rng: np.random.Generator, kind: str
) -> tuple[str | None, int, bool]:
    """What differs first between the two, or None; how many iterations there were; whether blocks were kept twice."""
    from infermax_gym.engine.policy import Information
    from tests.vllm.real import RealRequests, make_scheduler, serve

    name, policy, knobs, settings = case
    n = len(workload)
    predicted = hints = None
    if name == "informed" or policy.information in (Information.PREDICTED, Information.ORACLE):
        predicted = workload.num_output_tokens * (
            rng.uniform(0.5, 2.0, n) if policy.information == Information.PREDICTED else 1.0
        )
        predicted = np.maximum(predicted, 1.0)
    if settings is not None:
        settings = {**settings, "max_output_tokens": 1 << 10}
        hints = [{} for _ in range(n)]
        for r in range(n):
            if np.isfinite(workload.ttft_slo_s[r]):
                hints[r]["ttft_slo_s"] = float(workload.ttft_slo_s[r])
            hints[r]["tpot_slo_s"] = float(workload.tpot_slo_s[r])
            hints[r]["slo_class"] = int(workload.slo_class[r])
            if predicted is not None:
                hints[r]["predicted_output_tokens"] = float(predicted[r])
    scheduler = make_scheduler(config, knobs, settings, kind)
    real = serve(scheduler, workload, config, RealRequests(workload, config, hints))
    result = simulated(case, workload, config, predicted)
    assert result.schedule is not None
    for i, (a, b) in enumerate(zip(real.iterations, result.schedule, strict=False)):
        if (a.batch, a.preempted, a.start_s, a.end_s) != (b.batch, b.preempted, b.start_s, b.end_s):
            guard = f", {result.num_guarded_iterations} guarded" if result.num_guarded_iterations else ""
            return f"iteration {i}: real {a}, simulated {b}{guard}", i, real.kept_twice
    if len(real.iterations) != len(result.schedule):
        return (
            f"{len(real.iterations)} real iterations, {len(result.schedule)} simulated",
            len(real.iterations),
            real.kept_twice,
        )
    for r in range(n):
        if real.finish_s[r] != result.finish_s[r] or real.first_token_s[r] != result.first_token_s[r]:
            return f"times of request {r}", len(real.iterations), real.kept_twice
    return None, len(real.iterations), real.kept_twice


def main() -> int:
    """Run cases; 1 if any differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source")
    parser.add_argument("--only", help="comma-separated names of ways to schedule")
    parser.add_argument("--numbers", help="comma-separated numbers of the only cases to run")
    parser.add_argument("--scheduler", default="PolicyScheduler", help="class of the plug-in")
    parser.add_argument("--first", type=int, help="show so many differences in full")
    options = parser.parse_args()
    if options.source:
        sys.path.insert(0, options.source)
    import vllm

    version = tuple(int(part) for part in vllm.__version__.split("+")[0].split(".")[:2])
    cases = [*(own_cases(version) if options.scheduler == "PolicyScheduler" else ()), *plug_in_cases()]
    if options.only:
        cases = [case for case in cases if case[0] in options.only.split(",")]
    began = time.perf_counter()
    exact: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    iterations, twice, shown = 0, 0, []
    chosen = range(options.cases) if not options.numbers else map(int, options.numbers.split(","))
    for number in chosen:
        case = cases[number % len(cases)]
        rng = np.random.default_rng([options.seed, number])
        config, workload = draw(rng, case[1], version)
        what, count, kept_twice = difference(case, config, workload, rng, options.scheduler)
        iterations += count
        if what is not None and kept_twice:
            twice += 1
            continue
        tried[case[0]] += 1
        exact[case[0]] += what is None
        if what is not None:
            shown.append(f"case {number} ({case[0]}, prefix caching {config.prefix_caching}): {what}")
    wrong = {name: f"{exact[name]}/{tried[name]}" for name in tried if exact[name] < tried[name]}
    seconds = round(time.perf_counter() - began, 1)
    record = {
        "vllm": vllm.__version__,
        "cases": sum(tried.values()) + twice,
        "exact": sum(exact.values()),
        "inexact_as_blocks_were_kept_twice": twice,
        "iterations": iterations,
        "seconds": seconds,
        "inexact": wrong,
    }
    print(json.dumps(record))
    for line in shown[: options.first]:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
