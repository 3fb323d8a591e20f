"""`infermax bound`: what no scheduler can beat on a workload."""

from __future__ import annotations

import time
from enum import Enum
from typing import Annotated

import typer

from infermax_gym.cli import inputs, options, output
from infermax_gym.cli.errors import InputError


class Objective(str, Enum):
    """What is bounded."""

    makespan = "makespan"
    latency = "latency"


def bound(
    workload: options.Workload,
    objective: Annotated[Objective, typer.Option(help="The makespan, or the mean latency.")] = Objective.makespan,
    skip: options.Skip = 0,
    first: options.First = None,
    from_s: options.FromS = None,
    to_s: options.ToS = None,
    model: options.Model = None,
    log_type: options.LogType = None,
    time_scale: options.TimeScale = None,
    rate: options.Rate = None,
    cost: options.Cost = None,
    kv_tokens: options.KvTokens = None,
    block_size: options.BlockSize = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_model_len: options.MaxModelLen = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws random workloads.")] = 0,
    slo: options.SloLimits = None,
    json: options.Json = False,
) -> None:
    """Certify a lower bound that holds for every schedule, clairvoyant ones too. --slo: how many can be in time."""
    spec = inputs.workload_spec(
        workload, skip, first, time_scale, rate, from_s=from_s, to_s=to_s, model=model, log_type=log_type
    )
    config = inputs.EngineOptions(
        cost, kv_tokens, block_size, max_num_batched_tokens, max_num_seqs, max_model_len
    ).config()
    requests = inputs.load(spec, seed)
    limits = inputs.slo_limits(slo)
    if limits is not None and "ttft" not in limits:
        raise InputError(f"--slo {slo!r}: what is bounded is who gets the first token in time; add ttft=S")

    from infermax_gym.baselines.optimum.bounds import certify
    from infermax_gym.baselines.optimum.in_time import most_in_time

    began = time.perf_counter()
    found = certify(requests, config)
    in_time = None if limits is None else most_in_time(requests.with_limits(limits["ttft"], None), config)
    wall_s = time.perf_counter() - began
    value_s = found.makespan_s if objective is Objective.makespan else found.mean_latency_s
    if json:
        document = {
            "schema": 1,
            "objective": objective.value,
            "lower_bound_s": value_s,
            "busy_s": found.busy_s,
            "num_iterations": found.num_iterations,
            "num_requests": found.num_requests,
            "num_rejected": len(requests) - found.num_requests,
            "method": "dual feasible functions" + (", shortest remaining first" if objective == "latency" else ""),
            "wall_s": wall_s,
        }
        if in_time is not None:
            document["most_in_time"] = in_time
        print(output.to_json(document))
        return
    what = "makespan" if objective is Objective.makespan else "mean latency"
    print(f"no schedule has a {what} below {value_s:.6g} s")
    print(f"nor computes for less than {found.busy_s:.6g} s, in fewer than {found.num_iterations:,} iterations")
    if in_time is not None:
        print(f"nor gives more than {in_time:,} requests their first token in time")
    print(f"({found.num_requests:,} of {len(requests):,} requests can be served; bounded in {wall_s:.2f} s)")
