"""`infermax replay`: a real engine's log of requests, served again by the simulator."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, logs, options, output

if TYPE_CHECKING:
    from infermax_gym.engine import SimulationResult
    from infermax_gym.workload.request_log import RequestLog


def replay(
    log: logs.Log,
    policy: logs.PolicyName = logs.DEFAULT_POLICY,
    engine: logs.Resolved = None,
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
    profile: logs.Profile = None,
    layers: logs.Layers = None,
    tp: logs.TensorParallel = 1,
    hidden_size: logs.HiddenSize = 0,
    device: logs.DeviceName = None,
    context_skew: logs.ContextSkew = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write replay.json, details.json and replay.png there.", rich_help_panel="Output"
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw both over time.", rich_help_panel="Output")
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Of the picture.", show_default="the log's name", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Replay a real engine's log, and show real beside simulated."""
    contender = inputs.policy(policy)
    output.writable_file(picture)
    requests = logs.read_log(log)
    given = inputs.EngineOptions(
        cost, kv_tokens, block_size, max_num_batched_tokens, max_num_seqs, max_model_len, max_output_tokens,
        prefix_caching or None, empty_blocks_first or None, async_scheduling or None,
    )  # fmt: skip
    config = logs.engine_of(given, engine, logs.ProfileOptions(profile, layers, tp, hidden_size, device, context_skew))
    folder = None if report is None else output.writable_folder(report)

    from infermax_gym.evaluation.replay import replay_document

    inputs.check_async([config], {policy: contender})
    run = logs.replayer(requests, contender, config)
    start = time.perf_counter()
    result = run(config.cost, 0.0)
    wall_s = time.perf_counter() - start
    document = replay_document(logs.described(requests, log, policy, config), requests, result, config)
    document["simulated"]["wall_s"] = wall_s
    if folder is not None:
        output.write_text(folder / "replay.json", output.to_json(document) + "\n")
        output.write_text(folder / "details.json", output.to_json(_details(requests, result), indent=None) + "\n")
    for path in (picture, None if folder is None else folder / "replay.png"):
        if path is not None:
            logs.draw(requests, {"simulated": result}, path, config, title or requests.workload.name)
    if json:
        print(output.to_json(document))
    else:
        _print(document)


def _details(log: RequestLog, result: SimulationResult) -> dict[str, Any]:
    """Distributions of both, and what both held over time by the same reckoning, for `infermax report`."""
    from infermax_gym.evaluation.details import details_document, distributions_of, timeline_of_requests

    both: dict[str, RequestLog | SimulationResult] = {"logged": log, "simulated": result}
    end_s = max(float(log.finish_s.max()), result.makespan_s)
    blind = not math.isfinite(float(log.first_scheduled_s.min()))
    return details_document(
        {
            name: {"distributions": distributions_of(one), "timeline": timeline_of_requests(one, end_s, blind)}
            for name, one in both.items()
        }
    )


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    config, screen = document["config"], output.console()
    screen.print(
        f"{config['log']}: {config['num_requests']} requests, {config['policy']}, {config['cost']}, "
        f"{config['kv_tokens']:,} KV tokens",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "mean", "p50", "p90", "p99"):
        table.add_column(name, justify="left" if not name else "right")
    for figure, label in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("latency_s", "latency")):
        for what in ("real", "simulated"):
            values = document[what][figure]
            table.add_row(f"{label} {what}", *(_seconds(values[key]) for key in ("mean", "p50", "p90", "p99")))
        error = document["error"][figure]
        table.add_row(f"{label} error", *(logs.percent(error[key]) for key in ("mean", "p50", "p90", "p99")))
    screen.print(table)
    median = document["median_request_error"]["latency_s"]
    screen.print(
        f"median error of a request's latency {logs.percent(median)[1:]}; {document['simulated']['num_preemptions']} "
        f"preemptions; simulated in {document['simulated']['wall_s']:.2f} s",
        soft_wrap=True,
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g} s"
