"""`infermax bench`: policies side by side on one workload."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, options, output, yardsticks
from infermax_gym.cli.errors import InputError, Interrupted

if TYPE_CHECKING:
    from infermax_gym.evaluation import Cell, Contender, Evaluation


def bench(
    workload: options.Workload,
    skip: options.Skip = 0,
    first: options.First = None,
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
    policies: Annotated[
        str | None,
        typer.Option(metavar="all|A,B,C", help="Policies to compare.", show_default="all; of fleets, vllm-v1"),
    ] = None,
    agent: options.Agents = None,
    trust_pickle: options.TrustPickle = False,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="K", help="Seeds 0 to K-1: draw random workloads and predictions anew.")
    ] = 1,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Serve with N engines behind a router.",
            rich_help_panel="Fleet",
            show_default="none",
        ),
    ] = None,
    routers: options.Routers = None,
    staleness: options.Staleness = 0.0,
    forget_routed: options.ForgetRouted = False,
    prefill_replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="P",
            help="P further replicas compute the prompts; those of --replicas only decode.",
            rich_help_panel="Fleet",
            show_default="none",
        ),
    ] = None,
    prefill_router: Annotated[
        str, typer.Option(metavar="A", help="Router of the prompts.", rich_help_panel="Fleet")
    ] = "queued-tokens",
    kv_bytes_per_token: Annotated[
        float,
        typer.Option(metavar="B", help="KV of a token that moves to a decoding replica.", rich_help_panel="Fleet"),
    ] = 524_288.0,
    kv_gb_per_s: Annotated[
        float, typer.Option(metavar="G", help="Bandwidth that it moves with, in 10^9 bytes/s.", rich_help_panel="Fleet")
    ] = 25.0,
    slo: options.SloLimits = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="tenant|slo-class", help="Also compare tenants, or SLO classes.", show_default="neither"),
    ] = None,
    bound: Annotated[
        bool, typer.Option("--bound", help="Also show how far each is above what no scheduler can beat.")
    ] = False,
    optimum: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="S",
            help="Also search the best schedules, for S seconds per objective and seed; implies --bound.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write summary.json and results.csv there.", rich_help_panel="Output"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare schedulers on one workload."""
    spec = inputs.workload_spec(workload, skip, first, time_scale, rate)
    engine = inputs.EngineOptions(
        cost,
        kv_tokens,
        block_size,
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        max_output_tokens,
        prefix_caching,
    )
    config = engine.config()
    if bound or optimum is not None:
        yardsticks.check(config, replicas)
    limits = inputs.slo(slo)
    groups = inputs.groups(by)
    contenders: dict[str, Contender]
    fleet: dict[str, Any] = {}
    if replicas is None:
        if routers is not None or staleness != 0.0 or forget_routed or prefill_replicas is not None:
            raise InputError("--routers, --staleness, --forget-routed and --prefill-replicas need --replicas N")
        contenders = inputs.contenders(policies, agent, trust_pickle)
    else:
        if agent:
            raise InputError("--agent does not go with --replicas: the replicas of a fleet run policies of the table")
        prefill = inputs.prefill_pool(prefill_replicas, prefill_router, kv_bytes_per_token, kv_gb_per_s)
        fleets = inputs.fleets(policies, routers, replicas, staleness, not forget_routed, prefill)
        contenders = {**fleets}
        fleet = {
            "policies": list(dict.fromkeys(each.policy.name for each in fleets.values())),
            "routers": list(dict.fromkeys(each.router.name for each in fleets.values())),
            "replicas": replicas,
            "staleness_s": staleness,
            "counts_routed": not forget_routed,
        }
        if prefill is not None:
            fleet |= {
                "prefill_replicas": prefill.num_replicas,
                "prefill_router": prefill.router.name,
                "kv_bytes_per_token": kv_bytes_per_token,
                "kv_gb_per_s": kv_gb_per_s,
            }
    folder = None if out is None else output.writable_folder(out)
    requests = cache(partial(inputs.load, spec))

    from infermax_gym.evaluation import Cell

    named = {"policies": list(contenders), "agents": list(agent or ()), "seeds": seeds, **fleet}
    echo = inputs.resolved(spec, requests(0), config, slo, by=groups, **named)
    cell = Cell(requests, config, limits, groups)
    evaluation, interrupted = _run(cell, contenders, seeds, bool(fleet))
    document: dict[str, Any] = {"schema": 1, "config": echo}
    if (bound or optimum is not None) and not interrupted:
        bounds = yardsticks.certified(requests, config, seeds)
        optima = {} if optimum is None else yardsticks.add_optima(evaluation, cell, bounds, seeds, optimum)
        document["policies"] = evaluation.summary()
        for name, note in optima.items():
            document["policies"][name]["optimum"] = note
        yardsticks.add_distances(document["policies"], evaluation, contenders, bounds)
        document["bounds"] = {f"{objective}_s": sum(found) / seeds for objective, found in bounds.items()}
    else:
        document["policies"] = evaluation.summary()
    if interrupted:
        document["interrupted"] = True
    _report(document, evaluation, folder, json)
    if interrupted:
        raise Interrupted(f"{len(document['policies'])} of {len(contenders)} policies had finished")


def _run(cell: Cell, contenders: dict[str, Contender], num_seeds: int, fleet: bool) -> tuple[Evaluation, bool]:
    """Run everything, or what Ctrl-C leaves time for."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from baselines.predict import predictions
    from infermax_gym.evaluation import Evaluation, iterate_runs, warm_up

    evaluation = Evaluation(num_seeds)
    screen = output.progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        names = list(contenders)
        task = progress.add_task("preparing the engine, slow on its first use", total=len(names) * num_seeds)
        try:
            warm_up(contenders[names[0]] if fleet else None)
            progress.update(task, description=names[0])
            for run in iterate_runs(cell, contenders, range(num_seeds), predictions):
                evaluation.runs.append(run)
                done = len(evaluation.runs)
                progress.update(task, advance=1, description=names[min(done // num_seeds, len(names) - 1)])
        except KeyboardInterrupt:
            return evaluation, True
    return evaluation, False


def _report(document: dict[str, Any], evaluation: Evaluation, folder: Path | None, as_json: bool) -> None:
    text = output.to_json(document)
    if folder is not None:
        output.write_text(folder / "summary.json", text + "\n")
        output.write_text(folder / "results.csv", output.results_csv(evaluation.runs))
    if as_json:
        print(text)
    elif document["policies"]:
        from infermax_gym.evaluation import render_comparison

        render_comparison(document, output.console())
