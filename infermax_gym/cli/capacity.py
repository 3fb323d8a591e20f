"""`infermax capacity`: the highest rate or the most clients within an SLO, or the smallest fleet for a rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, options, output
from infermax_gym.cli.errors import InputError, Interrupted
from infermax_gym.cli.fleet_file import described, read_fleet
from infermax_gym.cli.fleets import FleetOptions

if TYPE_CHECKING:
    from infermax_gym.engine import EngineConfig
    from infermax_gym.evaluation import Demand, FleetContender, FleetPart, WorkloadSpec
    from infermax_gym.workload import Traffic, Workload

Row = dict[str, Any]


def capacity(
    workload: options.Workload,
    skip: options.Skip = 0,
    from_s: options.FromS = None,
    to_s: options.ToS = None,
    model: options.Model = None,
    log_type: options.LogType = None,
    windows: options.Windows = None,
    requests_per_replica: Annotated[
        int,
        typer.Option(
            min=10,
            metavar="N",
            help="Requests of a run for each replica; a trace file gives what it has.",
            rich_help_panel="Workload",
        ),
    ] = 2000,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Cost models to compare: presets or JSON files.",
            show_default="llama2-7b-a100",
            rich_help_panel="Engine",
        ),
    ] = None,
    kv_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N,M",
            help="KV cache in tokens, one number for all cost models or one for each.",
            show_default="100000",
            rich_help_panel="Engine",
        ),
    ] = None,
    block_size: options.BlockSize = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_model_len: options.MaxModelLen = None,
    max_output_tokens: options.MaxOutputTokens = None,
    prefix_caching: options.PrefixCaching = False,
    empty_blocks_first: options.EmptyBlocksFirst = False,
    policies: Annotated[
        str | None, typer.Option(metavar="all|A,B,C", help="Policies to compare.", show_default="vllm")
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(metavar="N,M", help="Numbers of replicas.", rich_help_panel="Fleet", show_default="1")
    ] = None,
    routers: Annotated[
        str, typer.Option(metavar="all|A,B,C", help="Routers to compare.", rich_help_panel="Fleet")
    ] = "least-outstanding",
    staleness: options.Staleness = 0.0,
    forget_routed: options.ForgetRouted = False,
    fleet_file: options.FleetFile = None,
    migrate: options.Migrate = "none",
    migrate_period: options.MigratePeriod = 0.05,
    kv_bytes_per_token: options.KvBytesPerToken = 524_288.0,
    kv_gb_per_s: options.KvGbPerS = 25.0,
    slo: options.SloLimits = "ttft=2.0,tpot=0.1",
    attainment: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the requests that must be within their limits.")
    ] = 0.9,
    for_rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Instead: the fewest replicas that carry R requests per second."),
    ] = None,
    clients: Annotated[
        bool,
        typer.Option(
            "--clients", help="Instead: the most clients, each sending its next request when its last has ended."
        ),
    ] = False,
    think_time: options.ThinkTime = None,
    ramp_up: options.RampUp = 0.0,
    seeds: Annotated[int, typer.Option(min=1, metavar="K", help="Seeds 0 to K-1, each with its own requests.")] = 3,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write capacity.json there.", rich_help_panel="Output")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find the highest request rate, or the most clients, within an SLO; or the smallest fleet for a rate."""
    from infermax_gym.evaluation import Demand, resolved_options

    if not 0.0 < attainment <= 1.0:
        raise InputError(f"--attainment must be a share in (0, 1], got {attainment:g}")
    if for_rate is not None and not (math.isfinite(for_rate) and for_rate > 0.0):
        raise InputError(f"--for-rate must be a positive number, got {for_rate:g}")
    if clients and for_rate is not None:
        raise InputError("--clients and --for-rate exclude each other: clients send when their last request has ended")
    if not clients and (think_time is not None or ramp_up):
        raise InputError("--think-time and --ramp-up are about clients: add --clients")
    traffic = inputs.traffic(1, think_time, ramp_up, False, None) if clients else None
    limits = inputs.slo(slo)
    if limits is None:
        raise InputError("--slo names no limit; expected ttft=S, tpot=S or latency=S")
    spec = inputs.workload_spec(
        workload, skip, None, None, None, from_s=from_s, to_s=to_s, model=model, log_type=log_type
    )
    inputs.check_windows(spec, windows)
    sizes = (
        block_size,
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        max_output_tokens,
        prefix_caching,
        empty_blocks_first,
    )
    typed_engines = [inputs.EngineOptions(name, tokens, *sizes) for name, tokens in _engines(cost, kv_tokens)]
    engines = [engine.config() for engine in typed_engines]
    typed = FleetOptions(
        policies,
        routers,
        staleness,
        forget_routed,
        migrate,
        migrate_period,
        kv_bytes_per_token=kv_bytes_per_token,
        kv_gb_per_s=kv_gb_per_s,
    )
    parts: tuple[FleetPart, ...] = ()
    if fleet_file is None:
        counts = _counts(replicas or "1")
        many = [typed.contenders(count) for count in (counts if for_rate is None else [1])]
        fleets = [fleet for each in many for fleet in each.values()]
    else:
        for option, value in (("--replicas", replicas), ("--for-rate", for_rate)):
            if value is not None:
                raise InputError(f"{option} and --fleet exclude each other; the file says how many replicas there are")
        if len(engines) > 1:
            raise InputError("--cost and --kv-tokens take one value with --fleet, for entries that leave it out")
        parts = read_fleet(fleet_file, typed_engines[0])
        fleets = list(typed.mixed(parts, Path(fleet_file).stem).values())
        counts = [fleets[0].num_replicas]
    if for_rate is None and not parts:  # one replica needs no router: the first stands for all
        first_router = fleets[0].router
        fleets = [fleet for fleet in fleets if fleet.num_replicas > 1 or fleet.router is first_router]
    chosen = [(engine, fleet) for engine in engines for fleet in fleets]
    promised = [part.config for part in parts] or engines
    folder = None if out is None else output.writable_folder(out)
    requests = cache(partial(_requests, spec, promised, requests_per_replica, windows is not None))
    seeds = windows or seeds
    first = requests(0, counts[0])

    from infermax_gym.baselines.predict import predictions

    demand = Demand(requests, engines[0], limits, attainment, range(seeds), predictions)
    echo = resolved_options(spec, first, engines[0], limits) | {
        "costs": [engine.cost.name for engine in engines],
        "kv_tokens_of": [engine.num_kv_tokens for engine in engines],
        **typed.echo({fleet.name: fleet for fleet in fleets}),
        **({"fleet": described(parts)} if parts else {}),
        "num_replicas": counts if for_rate is None else None,
        "requests_per_replica": requests_per_replica,
        "attainment": attainment,
        "for_rate": for_rate,
        "seeds": seeds,
        **({} if windows is None else {"windows": windows}),
        **({} if traffic is None else {"think_s": think_time, "ramp_up_s": ramp_up}),
    }
    rows, interrupted = _run(chosen, demand, for_rate, traffic)
    what = "clients" if clients else "capacity" if for_rate is None else "fleets"
    document = {"schema": 1, "config": echo, what: rows}
    if interrupted:
        document["interrupted"] = True
    _report(document, rows, folder, json)
    if interrupted:
        raise Interrupted(f"{len(rows)} of {len(chosen)} fleets had finished")


def _counts(text: str) -> list[int]:
    """`--replicas 1,2,4` as numbers."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"--replicas {text!r}: expected whole numbers of at least 1, separated by commas")
    return list(dict.fromkeys(counts))


def _engines(cost: str | None, kv_tokens: str | None) -> list[tuple[str | None, int | None]]:
    """`--cost A,B` and `--kv-tokens N,M` as pairs."""
    costs: list[str | None] = [None] if cost is None else [name.strip() for name in cost.split(",") if name.strip()]
    try:
        tokens: list[int | None] = [None] if kv_tokens is None else [int(part) for part in kv_tokens.split(",")]
    except ValueError:
        tokens = []
    if not costs:
        raise InputError("--cost names no cost model; expected names separated by commas")
    if len(tokens) not in (1, len(costs)) or any(size is not None and size < 1 for size in tokens):
        raise InputError(
            f"--kv-tokens {kv_tokens!r}: expected one whole number of at least 1, or one for each of "
            f"{len(costs)} cost models"
        )
    return list(zip(costs, tokens * len(costs) if len(tokens) == 1 else tokens, strict=True))


def _requests(
    spec: WorkloadSpec, engines: list[EngineConfig], per_replica: int, in_windows: bool, seed: int, num_replicas: int
) -> Workload:
    """The requests of a seed, or of the window of that number, for so many replicas; a file gives what it has."""
    first = per_replica * num_replicas
    skip = spec.skip + (seed * first if in_windows else 0)
    workload = inputs.load(replace(spec, skip=skip, first=first), seed, engines)
    if in_windows and len(workload) < first:
        raise InputError(f"--windows: window {seed + 1} has {len(workload)} of {first} requests; take fewer or smaller")
    if len(workload) < 2 or not math.isfinite(workload.mean_rate_per_s):
        raise InputError(f"--workload {spec.source}: needs at least two requests that arrive at different times")
    return workload


def _run(
    chosen: list[tuple[EngineConfig, FleetContender]], demand: Demand, for_rate: float | None, traffic: Traffic | None
) -> tuple[list[Row], bool]:
    """One row per fleet, or those that Ctrl-C leaves time for."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from infermax_gym.evaluation import warm_up

    rows: list[Row] = []
    screen = output.progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(chosen[0][1].name, total=len(chosen))
        try:
            open_traffic = for_rate is None and traffic is None  # else there may be more replicas, or closed loops
            runs = [(fleet.alone(engine) if open_traffic else None) or fleet for engine, fleet in chosen]
            warm_up(runs, chosen[0][0], output.say_compiling)
            for row in _rows(chosen, demand, for_rate, traffic):
                rows.append(row)
                done = len(rows)
                progress.update(task, advance=1, description=chosen[min(done, len(chosen) - 1)][1].name)
        except KeyboardInterrupt:
            return rows, True
    return rows, False


def _rows(
    chosen: list[tuple[EngineConfig, FleetContender]], demand: Demand, for_rate: float | None, traffic: Traffic | None
) -> Iterator[Row]:
    from infermax_gym.evaluation import find_capacity, find_concurrency, find_smallest

    for engine, fleet in chosen:
        demand = replace(demand, config=engine)
        names = {
            "cost": engine.cost.name,
            "kv_tokens": engine.num_kv_tokens,
            "policy": fleet.label or fleet.policy.name,
            "router": fleet.router.name if fleet.migration is None else fleet.name.split(" + ", 1)[1],
        }
        if traffic is not None:
            most = find_concurrency(fleet, demand, traffic)
            yield {
                **names,
                "num_replicas": fleet.num_replicas,
                "clients": most.clients,
                "ci95": most.ci95,
                "clients_per_replica": most.clients / fleet.num_replicas,
                "per_seed": list(most.per_seed),
                "cost_usd_per_h": fleet.fleet(demand.config).cost_usd_per_h,
            }
        elif for_rate is None:
            found = find_capacity(fleet, demand)
            count = fleet.num_replicas
            yield {
                **names,
                "num_replicas": count,
                "rate_per_s": found.rate_per_s,
                "ci95_per_s": found.ci95_per_s,
                "rate_per_replica_per_s": found.rate_per_s / count,
                "per_seed_per_s": list(found.per_seed),
                "cost_usd_per_h": fleet.fleet(demand.config).cost_usd_per_h,
            }
        else:
            size = find_smallest(fleet, for_rate, demand)
            yield {
                **names,
                "num_replicas": None if size.contender is None else size.contender.num_replicas,
                "attainment": size.attainment,
                "ci95": size.ci95,
                "cost_usd_per_h": size.cost_usd_per_h,
            }


def _report(document: dict[str, Any], rows: list[Row], folder: Path | None, as_json: bool) -> None:
    text = output.to_json(document)
    if folder is not None:
        output.write_text(folder / "capacity.json", text + "\n")
    if as_json:
        print(text)
    elif rows:
        from infermax_gym.evaluation import render_capacity

        render_capacity(document, output.console())
