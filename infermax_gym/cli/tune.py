"""`infermax tune`: which flags an engine should run with, on a workload and within limits."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infermax_gym.cli import inputs, options, output
from infermax_gym.cli.errors import InputError, Interrupted
from infermax_gym.cli.tune_commands import Repeat, serve
from infermax_gym.cli.tune_problem import Asked, find_problem

if TYPE_CHECKING:
    from infermax_gym.evaluation.tuning import Outcome, Problem

_TUNING = "Tuning"
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class ObjectiveName(str, Enum):
    """What counts."""

    goodput = "goodput"
    latency = "latency"
    cost = "cost"


class Backend(str, Enum):
    """Whose flags."""

    vllm = "vllm"
    sglang = "sglang"
    trtllm = "trtllm"


def tune(
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
    cost: options.Cost = None,
    kv_tokens: options.KvTokens = None,
    block_size: options.BlockSize = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_model_len: options.MaxModelLen = None,
    max_output_tokens: options.MaxOutputTokens = None,
    async_scheduling: options.AsyncScheduling = False,
    engine: Annotated[
        Backend | None,
        typer.Option(help="Whose flags.", show_default="as --cost says, else vllm", rich_help_panel=_TUNING),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, metavar="N", help="Engines that you have today.", rich_help_panel=_TUNING)
    ] = 1,
    objective: Annotated[
        ObjectiveName | None,
        typer.Option(
            help="What counts: requests within --slo, the mean latency, or USD per output token within --slo.",
            show_default="goodput with --slo, else latency",
            rich_help_panel=_TUNING,
        ),
    ] = None,
    attainment: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Of --objective cost: share of the requests that must be within --slo.",
            rich_help_panel=_TUNING,
        ),
    ] = 0.9,
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Of --objective cost: also these GPUs or engines, such as h200,b200 or h100x4/fp8.",
            show_default="none",
            rich_help_panel=_TUNING,
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="When to have answered: 90, 60s, 2m; of each hardware.", rich_help_panel=_TUNING
        ),
    ] = "60s",
    windows: Annotated[
        int,
        typer.Option(
            min=2,
            metavar="K",
            help="Windows of the workload to search on, and as many later ones for the verdict.",
            rich_help_panel=_TUNING,
        ),
    ] = 8,
    window_requests: Annotated[
        int | None,
        typer.Option(
            min=5,
            metavar="N",
            help="Requests of a window at most; presets: exactly, unless --first says so.",
            show_default="1000; of sglang, 100",
            rich_help_panel=_TUNING,
        ),
    ] = None,
    random_settings: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Random settings of several flags to begin with, beside those of one.",
            rich_help_panel=_TUNING,
        ),
    ] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Draws the random settings.", rich_help_panel=_TUNING)] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes.", show_default="all cores", rich_help_panel=_TUNING),
    ] = None,
    slo: options.SloLimits = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write tune.json there.", rich_help_panel="Output")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find the flags to run an engine with, and say how sure that is."""
    budget_s = _seconds(budget)
    name = objective.value if objective is not None else "latency" if slo is None else "goodput"
    traffic = inputs.traffic(concurrency, think_time, ramp_up, sessions, rate)
    _check(name, slo, attainment, hardware, rate)
    typed = inputs.EngineOptions(
        cost,
        kv_tokens,
        block_size,
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        max_output_tokens,
        async_scheduling=async_scheduling or None,
    )
    spec = inputs.workload_spec(
        workload, skip, first, time_scale, rate, traffic, from_s=from_s, to_s=to_s, model=model, log_type=log_type
    )
    asked = Asked(
        typed,
        None if engine is None else engine.value,
        replicas,
        spec,
        name,
        slo,
        attainment,
        budget_s,
        windows,
        window_requests,
        random_settings,
        seed,
        jobs or os.cpu_count() or 1,
    )
    folder = None if out is None else output.writable_folder(out)
    document, interrupted = _answered(asked)
    if hardware is not None and not interrupted:
        interrupted = _add_hardware(document, asked, inputs.names_in(hardware))
    text = output.to_json(document)
    if folder is not None:
        output.write_text(folder / "tune.json", text + "\n")
    if json:
        print(text)
    else:
        from infermax_gym.evaluation.tuning_report import render_tuning

        render_tuning(document, output.console())
    if interrupted:
        tried = sum(each["figures"] is not None for each in document["candidates"])
        raise Interrupted(f"{tried} settings had been tried")


def _seconds(text: str) -> float:
    """`60`, `60s`, `2m` or `1h` as seconds."""
    number = text.strip().rstrip("smh")
    unit = text.strip()[len(number) :]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0.0):
        raise InputError(f"--budget {text!r}: expected a time such as 90, 60s, 2m or 1h")
    return seconds


def _check(objective: str, slo: str | None, attainment: float, hardware: str | None, rate: float | None) -> None:
    if inputs.slo(slo) is None and objective != "latency":
        raise InputError(f"--objective {objective} needs limits: --slo ttft=S, tpot=S or latency=S")
    if not 0.0 < attainment <= 1.0:
        raise InputError(f"--attainment must be a share in (0, 1], got {attainment:g}")
    if hardware is not None and objective != "cost":
        raise InputError("--hardware compares what tokens cost: add --objective cost")


def _answered(asked: Asked) -> tuple[dict[str, Any], bool]:
    """Search one engine, and say what came out; whether Ctrl-C ended it."""
    from infermax_gym.evaluation import resolved_options
    from infermax_gym.evaluation.tuning_document import answer, tuning_document

    problem, repeat = find_problem(asked)
    outcome = _run(problem)
    held_out = repeat.held_out
    config = resolved_options(
        held_out.spec,
        problem.held_out[0],
        problem.config,
        inputs.slo(asked.slo),
        engine=problem.space.backend,
        replicas=asked.replicas if asked.replicas > 1 else None,
        staleness_s=0.0,
        counts_routed=True,
        windows=asked.windows,
        windows_are_seeds=repeat.is_random,
        window_requests=len(problem.held_out[0]),
        attainment=repeat.attainment,
        budget_s=asked.budget_s,
        jobs=asked.jobs,
        seed=asked.seed,
        random_settings=asked.random_settings,
    )
    document = tuning_document(config, outcome)
    document["answer"] = answer(document, outcome)
    document["commands"] = _commands(outcome, document, repeat)
    return document, outcome.interrupted


def _commands(outcome: Outcome, document: dict[str, Any], repeat: Repeat) -> list[str]:
    """How to serve with what is recommended, and how to see the figures again."""
    space, today = outcome.problem.space, outcome.today
    flags = outcome.candidates[document["flags"]["id"]]
    base = flags.config.cost.num_devices
    commands = [*serve(space, flags.setting, base), repeat.command(today, space)]
    if flags is not today:
        commands.append(repeat.command(flags, space))
    if outcome.policy is not None and outcome.policy is not flags:
        commands.append(repeat.command(outcome.policy, space))
    rate = document["config"]["mean_rate_per_s"]
    if repeat.attainment is not None and rate is not None:
        commands.append(repeat.sizing(flags, space, rate))
    return list(dict.fromkeys(commands))


def _run(problem: Problem) -> Outcome:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from infermax_gym.evaluation import warm_up
    from infermax_gym.evaluation.tuning import TooLittleTime, tune

    try:
        contenders = [problem.resolve(problem.space.policy), *problem.policies.values()]
        warm_up([each for each in contenders if each is not None], problem.config, output.say_compiling)
        if problem.routers:
            _warm_up_fleet(problem)
    except KeyboardInterrupt:
        raise Interrupted("nothing had been tried") from None
    screen = output.progress_console()
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} runs"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal, auto_refresh=False) as bar:
        task = bar.add_task(f"{problem.config.cost.name}: searching")

        def notify() -> None:
            bar.update(task, advance=1)
            bar.refresh()

        try:
            return tune(problem, notify)
        except TooLittleTime as error:
            raise InputError(f"--budget: {error}; give more, or fewer --windows or --window-requests") from None


def _warm_up_fleet(problem: Problem) -> None:
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation import FleetContender, warm_up

    policy = problem.resolve(problem.space.policy)
    if isinstance(policy, Policy):
        router = next(iter(problem.routers.values()))
        warm_up([FleetContender(policy, router, 2)], problem.config, output.say_compiling)


def _add_hardware(document: dict[str, Any], asked: Asked, names: list[str]) -> bool:
    """Also search other hardware; whether Ctrl-C ended it."""
    from infermax_gym.cli.tune_hardware import engine_on, entry, hardware_in_words

    entries = [entry(document)]
    interrupted = False
    for name in names:
        there = replace(asked, engine=replace(asked.engine, cost=engine_on(asked.engine.cost, name), kv_tokens=None))
        found, interrupted = _answered(there)
        entries.append(entry(found))
        if interrupted:
            break
    document["hardware"] = entries
    document["answer"] += hardware_in_words(entries, document["config"])
    return interrupted
