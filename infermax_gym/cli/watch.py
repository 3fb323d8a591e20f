"""`infermax watch`: policies at work in this terminal."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from infermax_gym.cli import inputs, keys, options, output
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.viewer.watching import Watched

_FRAMES_PER_S = 12.0
_DEFAULT_WATCH_S = 60.0
_MOST_POLICIES = 4
_HELP = "space pause   → step   + faster   - slower   q quit"


def watch(
    workload: options.Workload,
    policies: Annotated[
        str, typer.Option(metavar="A,B", help="Policies of the table, one to four side by side.")
    ] = "vllm",
    skip: options.Skip = 0,
    first: options.First = None,
    time_scale: options.TimeScale = None,
    rate: options.Rate = None,
    cost: options.Cost = None,
    kv_tokens: options.KvTokens = None,
    block_size: options.BlockSize = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_num_seqs: options.MaxNumSeqs = None,
    prefix_caching: options.PrefixCaching = False,
    async_scheduling: options.AsyncScheduling = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws random workloads and predictions.")] = 0,
    speed: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Simulated seconds per second.", show_default="all in a minute"),
    ] = None,
    until: Annotated[
        float | None, typer.Option(min=0.0, metavar="S", help="Stop there.", show_default="the end")
    ] = None,
) -> None:
    """Watch policies at work: queue, batch, KV cache and preemptions.

    Keys: space pauses, → (or n) steps one iteration, + and - change the speed, q quits. Where the output is no
    terminal, the last view is printed.
    """
    names = inputs.names_in(policies)
    if not 1 <= len(names) <= _MOST_POLICIES:
        raise InputError(f"--policies: expected one to {_MOST_POLICIES} policies to watch, got {len(names)}")
    spec = inputs.workload_spec(workload, skip, first, time_scale, rate)
    engine = inputs.EngineOptions(
        cost, kv_tokens, block_size, max_num_batched_tokens, max_num_seqs, None, None, prefix_caching, False,
        async_scheduling,
    )  # fmt: skip
    config = engine.config()
    chosen = {name: inputs.policy(name) for name in names}

    from infermax_gym.baselines.predict import predictions
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation import warm_up
    from infermax_gym.evaluation.fleets import Sized
    from infermax_gym.viewer.watching import Watched

    requests = inputs.load(spec, seed, [config])
    warm_up(list(chosen.values()), config, output.say_compiling)
    watched = []
    for name, contender in chosen.items():
        policy = contender.resolve(config) if isinstance(contender, Sized) else contender
        if not isinstance(policy, Policy):
            raise InputError(f"policy {name!r} has code of its own; watch shows policies of the table (infermax list)")
        watched.append(Watched(name, requests, config, policy, predictions(policy, requests, seed)))
    span_s = float(requests.arrival_s[-1]) if len(requests) else 0.0
    _play(watched, speed or max(span_s / _DEFAULT_WATCH_S, 1e-3), math.inf if until is None else until)


def _play(watched: list[Watched], speed: float, until_s: float) -> None:
    """Show them until all have ended, the moment has come, or somebody quits."""
    screen = output.console()
    if screen.is_terminal and sys.stdin.isatty():
        _live(watched, speed, until_s)
    else:
        moment, step = 0.0, max(speed * _DEFAULT_WATCH_S, 1e-3) / 200.0
        while not all(one.is_over for one in watched) and moment < until_s:
            moment = min(moment + step, until_s)
            for one in watched:
                one.advance(moment)
    from infermax_gym.viewer.watching import side_by_side

    screen.print(side_by_side(watched, screen.width, 24))


def _live(watched: list[Watched], speed: float, until_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from infermax_gym.viewer.watching import side_by_side

    console = Console()
    moment, paused = 0.0, False
    with keys.pressed() as next_key, Live(console=console, screen=True, auto_refresh=False) as live:
        while not all(one.is_over for one in watched) and moment < until_s:
            state = "paused" if paused else f"{speed:.3g} x real time"
            footer = f" {state}   {_HELP}"
            live.update(side_by_side(watched, console.width, console.height - 1, footer), refresh=True)
            time.sleep(1.0 / _FRAMES_PER_S)
            key = next_key()
            if key == "q":
                return
            paused ^= key == " "
            speed *= {"+": 2.0, "=": 2.0, "-": 0.5}.get(key, 1.0)
            if key in ("n", keys.RIGHT):
                paused = True
                behind = min((one for one in watched if not one.is_over), key=lambda one: one.clock_s)
                behind.step()
                moment = max(moment, behind.clock_s)
            elif not paused:
                moment = min(moment + speed / _FRAMES_PER_S, until_s)
                for one in watched:
                    one.advance(moment)
