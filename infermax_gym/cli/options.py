"""The options that several commands share, each defined once."""

from __future__ import annotations

from typing import Annotated

import typer

_WORKLOAD = "Workload"
_ENGINE = "Engine"
_FLEET = "Fleet"
_OUTPUT = "Output"

Workload = Annotated[
    str, typer.Option(metavar="NAME|PATH", help="A preset or a trace file.", rich_help_panel=_WORKLOAD)
]
Skip = Annotated[
    int, typer.Option(min=0, metavar="N", help="Leave out the first N requests.", rich_help_panel=_WORKLOAD)
]
First = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Keep the next N requests.",
        show_default="all; of presets, 1000",
        rich_help_panel=_WORKLOAD,
    ),
]
FromS = Annotated[
    float | None,
    typer.Option(
        "--from-s",
        metavar="S",
        help="Begin S seconds after the first request of a trace file.",
        show_default="0",
        rich_help_panel=_WORKLOAD,
    ),
]
ToS = Annotated[
    float | None,
    typer.Option(
        "--to-s", metavar="S", help="Stop S seconds after it.", show_default="its end", rich_help_panel=_WORKLOAD
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Keep the requests to one model (BurstGPT's Model).",
        show_default="all",
        rich_help_panel=_WORKLOAD,
    ),
]
LogType = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Keep one kind of request (BurstGPT's Log Type, Qwen-Bailian's type).",
        show_default="all",
        rich_help_panel=_WORKLOAD,
    ),
]
TimeScale = Annotated[
    float | None,
    typer.Option(metavar="X", help="Multiply all arrival times by X.", show_default="1", rich_help_panel=_WORKLOAD),
]
Rate = Annotated[
    float | None,
    typer.Option(metavar="R", help="Set the mean arrival rate, requests per second.", rich_help_panel=_WORKLOAD),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="C",
        help="C clients send the requests in order, each its next one when its last has ended.",
        show_default="requests arrive when they arrive",
        rich_help_panel=_WORKLOAD,
    ),
]
ThinkTime = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="Seconds from an end to the next request of a client, or turn of a conversation.",
        show_default="0; of turns, as recorded",
        rich_help_panel=_WORKLOAD,
    ),
]
RampUp = Annotated[
    float,
    typer.Option(metavar="S", help="Seconds over which the clients begin.", rich_help_panel=_WORKLOAD),
]
Sessions = Annotated[
    bool,
    typer.Option(
        "--sessions",
        help="Turns of a conversation are sent when the answer before is there and a pause is over.",
        rich_help_panel=_WORKLOAD,
    ),
]
Windows = Annotated[
    int | None,
    typer.Option(
        "--windows",
        min=2,
        metavar="K",
        help="Split the requests of a trace file into K windows, each begun on an empty engine, and show means.",
        show_default="none",
        rich_help_panel=_WORKLOAD,
    ),
]

Cost = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="Seconds per iteration: a preset, an engine such as qwen3-32b@h100x2 with its sizes, or a file.",
        show_default="llama2-7b-a100",
        rich_help_panel=_ENGINE,
    ),
]


def _size(help_text: str, default: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        min=1, metavar="N", help=help_text, show_default=default, rich_help_panel=_ENGINE
    )
    return option


# Left out, an option takes what a named engine resolves to, else the default of `EngineConfig`; a test holds the
# defaults shown here against the latter.
KvTokens = Annotated[int | None, _size("KV cache, in tokens.", "100000")]
BlockSize = Annotated[int | None, _size("Tokens per KV block.", "16")]
MaxNumBatchedTokens = Annotated[int | None, _size("Token budget of an iteration.", "512")]
MaxNumSeqs = Annotated[int | None, _size("Most requests running at once.", "256")]
MaxModelLen = Annotated[
    int | None, _size("Longest prompt + output that the engine is set up for.", "the workload's, to a power of 2")
]
MaxOutputTokens = Annotated[
    int | None,
    _size(
        "Upper bound on outputs that schedulers are told; longer ones are refused.",
        "the workload's, to a power of 2",
    ),
]

Routers = Annotated[
    str | None,
    typer.Option(metavar="all|A,B,C", help="Routers to compare.", show_default="all", rich_help_panel=_FLEET),
]
Staleness = Annotated[
    float,
    typer.Option(
        "--staleness",
        min=0.0,
        metavar="S",
        help="Seconds between snapshots of the load signals; 0 looks at each arrival.",
        rich_help_panel=_FLEET,
    ),
]
ForgetRouted = Annotated[
    bool,
    typer.Option(
        "--forget-routed",
        help="Routers do not add to a snapshot what they routed since, as one of many could not.",
        rich_help_panel=_FLEET,
    ),
]
FleetFile = Annotated[
    str | None,
    typer.Option(
        "--fleet",
        metavar="PATH",
        help="A JSON list of the replicas, which may all differ.",
        show_default="none",
        rich_help_panel=_FLEET,
    ),
]
Migrate = Annotated[
    str,
    typer.Option(
        metavar="none|defrag|balanced",
        help="Requests move between replicas while they decode; several, separated by commas, are compared.",
        rich_help_panel=_FLEET,
    ),
]
MigratePeriod = Annotated[
    float,
    typer.Option(metavar="S", help="Seconds between two pairings of replicas.", rich_help_panel=_FLEET),
]
KvBytesPerToken = Annotated[
    float,
    typer.Option(metavar="B", help="KV of a token that moves from replica to replica.", rich_help_panel=_FLEET),
]
KvGbPerS = Annotated[
    float, typer.Option(metavar="G", help="Bandwidth that it moves with, in 10^9 bytes/s.", rich_help_panel=_FLEET)
]
EmptyBlocksFirst = Annotated[
    bool,
    typer.Option(
        "--empty-blocks-first",
        help="Of the prefix cache: reuse freed blocks without contents first, as vLLM does from 0.25 on.",
        rich_help_panel=_ENGINE,
    ),
]
AsyncScheduling = Annotated[
    bool,
    typer.Option(
        "--async-scheduling",
        help="Decide each iteration when the one before it begins, as vLLM does on GPUs.",
        rich_help_panel=_ENGINE,
    ),
]
PrefixCaching = Annotated[
    bool,
    typer.Option(
        "--prefix-caching", help="Keep full KV blocks findable: shared prefixes, victims.", rich_help_panel=_ENGINE
    ),
]

Agents = Annotated[
    list[str] | None, typer.Option("--agent", metavar="PATH", help="A trained policy; may be given again.")
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle", help="Also read archives of stable-baselines3 as agents; reading one runs code from it."
    ),
]
SloLimits = Annotated[
    str | None,
    typer.Option(
        "--slo",
        metavar="ttft=S,tpot=S,latency=S",
        help="Limits in seconds; goodput counts requests within all of them.",
        rich_help_panel=_OUTPUT,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of a table.", rich_help_panel=_OUTPUT)
]
