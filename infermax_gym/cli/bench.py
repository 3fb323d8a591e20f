"""`infermax bench`: policies side by side on one workload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, options, output, yardsticks
from infermax_gym.cli.errors import InputError, Interrupted
from infermax_gym.cli.fleet_file import described, read_fleet
from infermax_gym.cli.fleets import FleetOptions

if TYPE_CHECKING:
    from infermax_gym.evaluation import Contender, Evaluation, FleetContender, Run, Scenario, Served
    from infermax_gym.evaluation.details import Details
    from infermax_gym.workload import Workload


def bench(
    context: typer.Context,
    workload: options.Workload,
    skip: options.Skip = 0,
    first: options.First = None,
    from_s: options.FromS = None,
    to_s: options.ToS = None,
    model: options.Model = None,
    log_type: options.LogType = None,
    time_scale: options.TimeScale = None,
    rate: options.Rate = None,
    concurrency: options.Concurrency = None,
    think_time: options.ThinkTime = None,
    ramp_up: options.RampUp = 0.0,
    sessions: options.Sessions = False,
    windows: options.Windows = None,
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
    policies: Annotated[
        str | None,
        typer.Option(
            metavar="all|A,B,C",
            help="Policies to compare; module:Class is one of your own.",
            show_default="all; of fleets, vllm",
        ),
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
    fleet_file: options.FleetFile = None,
    migrate: options.Migrate = "none",
    migrate_period: options.MigratePeriod = 0.05,
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
    kv_bytes_per_token: options.KvBytesPerToken = 524_288.0,
    kv_gb_per_s: options.KvGbPerS = 25.0,
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
        typer.Option(
            metavar="DIR",
            help="Also write summary.json, results.csv and details.json there, for infermax report.",
            rich_help_panel="Output",
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Run policies and seeds on N processes of this machine.", rich_help_panel="Output"
        ),
    ] = 1,
    json: options.Json = False,
) -> None:
    """Compare schedulers on one workload."""
    traffic = inputs.traffic(concurrency, think_time, ramp_up, sessions, rate)
    spec = inputs.workload_spec(
        workload, skip, first, time_scale, rate, traffic, from_s=from_s, to_s=to_s, model=model, log_type=log_type
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
    typed = FleetOptions(
        policies,
        routers,
        staleness,
        forget_routed,
        migrate,
        migrate_period,
        prefill_replicas,
        prefill_router,
        kv_bytes_per_token,
        kv_gb_per_s,
    )
    if bound or optimum is not None:
        yardsticks.check(config, "--fleet" if fleet_file else "--replicas" if replicas else None, traffic)
    if prefill_replicas is not None and not traffic.is_open:
        raise InputError("--prefill-replicas needs arrivals that are known beforehand, not --concurrency or --sessions")
    limits = inputs.slo(slo)
    groups = inputs.groups(by)
    contenders: dict[str, Contender]
    fleet: dict[str, Any] = {}
    engines = [config]
    if replicas is None and fleet_file is None:
        if typed.are_given:
            raise InputError("options of fleets, such as --routers or --migrate, need --replicas N or --fleet PATH")
        contenders = inputs.contenders(policies, agent, trust_pickle)
    else:
        fleets, fleet = _fleets(typed, engine, replicas, fleet_file, bool(agent))
        contenders = {**fleets}
        engines = [part.config for each in fleets.values() for part in each.parts] or engines
    inputs.check_async(engines, contenders)
    folder = None if out is None else output.claimed_folder(out, context)
    load = partial(inputs.load, inputs.windowed(spec, windows, seeds), engines=engines)
    requests = cache(load)

    from infermax_gym.evaluation import Scenario, comparison_document, resolved_options

    named = {"policies": list(contenders), "agents": list(agent or ()), "seeds": seeds, **fleet}
    if windows is not None:
        named["windows"] = seeds = windows
    echo = resolved_options(spec, requests(0), config, limits, by=groups, **named)
    scenario = Scenario(requests, config, limits, groups)
    details: dict[str, Details] | None = None if folder is None else {}
    runs = _runs(scenario, replace(scenario, workload=load), contenders, seeds, jobs, details)
    evaluation, interrupted = _run(runs, list(contenders), seeds)
    if (bound or optimum is not None) and not interrupted:
        bounds = yardsticks.certified(requests, config, seeds)
        optima = {} if optimum is None else yardsticks.add_optima(evaluation, scenario, bounds, seeds, optimum)
        measured = yardsticks.measured(evaluation, contenders, bounds, optima)
        document = comparison_document(echo, measured, bounds=yardsticks.means(bounds))
    else:
        document = comparison_document(echo, evaluation.summary(), interrupted=interrupted or None)
    _report(document, evaluation, folder, details, json)
    if interrupted:
        raise Interrupted(f"{len(document['policies'])} of {len(contenders)} policies had finished")


def _fleets(
    typed: FleetOptions, engine: inputs.EngineOptions, replicas: int | None, path: str | None, has_agents: bool
) -> tuple[dict[str, FleetContender], dict[str, Any]]:
    """Fleets by name, and what the report says of them."""
    if has_agents:
        raise InputError("--agent does not go with --replicas: the replicas of a fleet run policies of the table")
    if path is None:
        assert replicas is not None
        fleets = typed.contenders(replicas)
        return fleets, {**typed.echo(fleets), "replicas": replicas}
    if replicas is not None:
        raise InputError("--replicas and --fleet exclude each other; the file says how many replicas there are")
    parts = read_fleet(path, engine)
    fleets = typed.mixed(parts, Path(path).stem)
    count = sum(part.count for part in parts)
    return fleets, {**typed.echo(fleets), "replicas": count, "fleet": described(parts)}


def _runs(
    here: Scenario,
    elsewhere: Scenario,
    contenders: dict[str, Contender],
    num_seeds: int,
    jobs: int,
    details: dict[str, Details] | None,
) -> Iterator[Run]:
    """The runs, one after another here, or on processes, whose scenario keeps no requests of this one.

    What pictures need of the first seed goes into `details`, unless it is None.
    """
    from infermax_gym.baselines.predict import predictions
    from infermax_gym.cli.bench_jobs import pictured, runs_on_processes
    from infermax_gym.evaluation import iterate_runs

    if jobs > 1:
        return runs_on_processes(elsewhere, contenders, num_seeds, jobs, details)

    def keep(name: str, contender: Contender, workload: Workload, served: Served) -> None:
        assert details is not None
        details[name] = pictured(here, contender, workload, served)

    observe = None if details is None else keep
    return iterate_runs(here, contenders, range(num_seeds), predictions, output.say_compiling, observe)


def _run(runs: Iterator[Run], names: list[str], num_seeds: int) -> tuple[Evaluation, bool]:
    """Run everything, or what Ctrl-C leaves time for."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from infermax_gym.evaluation import Evaluation

    evaluation = Evaluation(num_seeds)
    screen = output.progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(names[0], total=len(names) * num_seeds)
        try:
            for run in runs:
                evaluation.runs.append(run)
                done = len(evaluation.runs)
                progress.update(task, advance=1, description=names[min(done // num_seeds, len(names) - 1)])
        except KeyboardInterrupt:
            return evaluation, True
    return evaluation, False


def _report(
    document: dict[str, Any],
    evaluation: Evaluation,
    folder: Path | None,
    details: dict[str, Details] | None,
    as_json: bool,
) -> None:
    from infermax_gym.evaluation import details_document

    text = output.to_json(document)
    if folder is not None:
        output.write_text(folder / "details.json", output.to_json(details_document(details or {}), indent=None) + "\n")
        output.write_text(folder / "summary.json", text + "\n")
        output.write_text(folder / "results.csv", output.results_csv(evaluation.runs))
    if as_json:
        print(text)
    elif document["policies"]:
        from infermax_gym.evaluation import render_comparison

        render_comparison(document, output.console())
