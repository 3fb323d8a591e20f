"""`infermax simulate`: one policy on one workload, down to every request and iteration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infermax_gym.cli import inputs, options, output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.engine import SimulationResult


def simulate(
    workload: options.Workload,
    policy: Annotated[str | None, typer.Option(metavar="NAME|MODULE:NAME", help="The policy to run.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="PATH", help="The trained policy to run instead.")] = None,
    trust_pickle: options.TrustPickle = False,
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
    max_output_tokens: options.MaxOutputTokens = None,
    prefix_caching: options.PrefixCaching = False,
    empty_blocks_first: options.EmptyBlocksFirst = False,
    async_scheduling: options.AsyncScheduling = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws random workloads and predictions.")] = 0,
    slo: options.SloLimits = None,
    requests_out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="One line per request.", rich_help_panel="Output")
    ] = None,
    schedule_out: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="One line per iteration.", rich_help_panel="Output")
    ] = None,
    trace_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="A timeline for Perfetto or Chrome.", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run one scheduler and look closely."""
    if policy is not None and agent is None:
        name, contender = policy, inputs.policy(policy)
    elif agent is not None and policy is None:
        name, contender = agent, inputs.agent(agent, trust_pickle)
    else:
        raise InputError("give either --policy NAME or --agent PATH")
    for path in (requests_out, schedule_out, trace_out):
        output.writable_file(path)
    spec = inputs.workload_spec(
        workload, skip, first, time_scale, rate, from_s=from_s, to_s=to_s, model=model, log_type=log_type
    )
    engine = inputs.EngineOptions(
        cost,
        kv_tokens,
        block_size,
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        max_output_tokens,
        prefix_caching,
        empty_blocks_first,
        async_scheduling,
    )
    config = engine.config()
    inputs.check_async([config], {name: contender})
    limits = inputs.slo(slo)

    from infermax_gym.baselines.predict import predictions
    from infermax_gym.evaluation import (
        comparison_document,
        information_of,
        resolved_options,
        run_contender,
        warm_up,
        with_slo,
    )

    requests = with_slo(inputs.load(spec, seed, [config]), limits)
    record = schedule_out is not None or trace_out is not None
    warm_up([contender], config, output.say_compiling)
    served = run_contender(contender, requests, config, seed=seed, predict=predictions, record_schedule=record)
    _write_files(served.result, requests_out, schedule_out, trace_out)
    figures = {"information": information_of(contender), **served.figures(config, limits)}
    echo = resolved_options(spec, requests, config, limits, policy=policy, agent=agent, seed=seed)
    document = comparison_document(echo, {name: figures})
    if json:
        print(output.to_json(document))
    else:
        from infermax_gym.evaluation import render_run

        render_run(document, output.console())


def _write_files(
    result: SimulationResult,
    requests_out: Path | None,
    schedule_out: Path | None,
    trace_out: Path | None,
) -> None:
    from infermax_gym.evaluation.export import write_requests_csv, write_schedule_jsonl
    from infermax_gym.viewer.perfetto import write_trace

    for path, write in (
        (requests_out, write_requests_csv),
        (schedule_out, write_schedule_jsonl),
        (trace_out, write_trace),
    ):
        if path is not None:
            with output.atomic(path) as file:
                write(result, file)
