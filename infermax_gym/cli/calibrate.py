"""`infermax calibrate`: factors on a cost model that make a replay agree with a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, logs, options, output

if TYPE_CHECKING:
    from infermax_gym.evaluation.calibrate import Calibration
    from infermax_gym.workload.request_log import RequestLog


def calibrate(
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
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="COST.json", help="Write the calibrated cost.", rich_help_panel="Output"),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the log, before and after over time.", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Fit factors on a cost to the first half of a log, and show what they do on the second."""
    contender = inputs.policy(policy)
    for path in (out, picture):
        output.writable_file(path)
    requests = logs.read_log(log)
    given = inputs.EngineOptions(
        cost, kv_tokens, block_size, max_num_batched_tokens, max_num_seqs, max_model_len, max_output_tokens,
        prefix_caching or None, empty_blocks_first or None, async_scheduling or None,
    )  # fmt: skip
    config = logs.engine_of(given, engine, logs.ProfileOptions(profile, layers, tp, hidden_size, device, context_skew))

    inputs.check_async([config], {policy: contender})

    from infermax_gym.evaluation.calibrate import calibrate as find

    found = find(requests, config.cost, logs.replayer(requests, contender, config))
    for warning in found.warnings:
        output.warn(warning)
    if out is not None:
        output.write_text(out, found.cost.to_json() + "\n")
    if picture is not None:
        split_s = float(requests.workload.arrival_s[(len(requests) + 1) // 2 - 1])
        runs = {"before": found.before, "after": found.after}
        logs.draw(requests, runs, picture, config, f"{requests.workload.name}, calibrated", split_s)
    document = _document(logs.described(requests, log, policy, config), requests, found)
    if json:
        print(output.to_json(document))
    else:
        _print(document)


def _document(config: dict[str, Any], log: RequestLog, found: Calibration) -> dict[str, Any]:
    from infermax_gym.evaluation.calibrate import first_half
    from infermax_gym.evaluation.replay import compare, occupancy_error

    halves: dict[str, Any] = {}
    fitted = first_half(log)
    for name, chosen in (("first_half", fitted), ("second_half", ~fitted)):
        halves[name] = {}
        for when, result in (("before", found.before), ("after", found.after)):
            compared = compare(log, result, chosen)
            halves[name][when] = {
                **compared["error"],
                "median_request_error": compared["median_request_error"],
                "occupancy": occupancy_error(log, result, chosen),
            }
    return {
        "schema": 1,
        "config": config,
        "factors": vars(found.factors),
        **halves,
        "warnings": list(found.warnings),
    }


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    screen, factors = output.console(), document["factors"]
    screen.print(
        f"factors: overhead {factors['overhead']:.3f}, compute {factors['compute']:.3f}, attention "
        f"{factors['attention']:.3f}; {1e3 * factors['request_s']:.1f} ms per request",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("simulated / real - 1", "first half, before", "after", "second half, before", "after"):
        table.add_column(name, justify="left" if "/" in name else "right")
    runs = [document[half][when] for half in ("first_half", "second_half") for when in ("before", "after")]
    for figure, label in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("latency_s", "latency")):
        for key in ("mean", "p50", "p90", "p99"):
            table.add_row(f"{label} {key}", *(logs.percent(run[figure][key]) for run in runs))
    for key, label in (("waiting", "waiting requests"), ("running", "running requests")):
        table.add_row(f"{label}, mean over time", *(logs.percent(run["occupancy"][key]) for run in runs))
    screen.print(table)
