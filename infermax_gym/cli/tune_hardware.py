"""`infermax tune --hardware`: the same model on other GPUs, by what its tokens cost within the SLO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from infermax_gym.cli import inputs
from infermax_gym.cli.errors import InputError

Entry = dict[str, Any]


def engine_on(cost: str | None, hardware: str) -> str:
    """The model of an engine on other hardware.

    Args:
        cost: name of the engine, MODEL@GPU...
        hardware: GPU[xTP][/BACKEND][/DTYPE], which takes the place of what follows the @; backend and dtype are the
            engine's where it names none. Or the name of an engine.

    Raises:
        InputError: the engine is none of the table, or there is none of that name.
    """
    from infermax_gym.cost.engines import BACKENDS

    named = None if cost is None else inputs.named_engine(cost)
    if named is None:
        raise InputError("--hardware needs an engine of the table: --cost MODEL@GPU, see `infermax list costs`")
    words = hardware.split("/")[1:]
    backends = [word for word in words if word in BACKENDS]
    name = hardware
    if "@" not in hardware:
        backend = [] if backends else [named.backend]
        dtype = [] if len(words) > len(backends) else [named.weights_dtype]
        name = "/".join([f"{named.model}@{hardware}", *backend, *dtype])
    try:
        found = inputs.named_engine(name)
    except InputError as error:
        raise InputError(f"--hardware {hardware!r}: {str(error).removeprefix('--cost: ')}") from None
    assert found is not None
    return found.name


def entry(document: Mapping[str, Any]) -> Entry:
    """What a search on one kind of hardware found, in short.

    Args:
        document: of `tuning_document`, with its commands.
    """
    flags = document["flags"]
    cost = (flags["figures"] or {}).get("cost") or {}
    halves = (flags["ci95"] or {}).get("cost") or {}
    rate, hourly = cost.get("rate_per_s"), cost.get("usd_per_h")
    sure = None if rate is None else rate - (halves.get("rate_per_s") or 0.0)
    wanted = document["config"].get("mean_rate_per_s") or 0.0
    count = math.ceil(wanted / sure) if sure is not None and sure > 0.0 else None
    return {
        "engine": flags["engine"],
        "flags": flags["flags"],
        "recommended": flags["recommended"],
        "usd_per_million_tokens": cost.get("usd_per_million_tokens"),
        "ci95": halves.get("usd_per_million_tokens"),
        "rate_per_s": rate,
        "usd_per_h": hourly,
        "today": {"cost": ((document["today"]["figures"] or {}).get("cost") or {})},
        "replicas": count,
        "fleet_usd_per_h": None if count is None or hourly is None else count * hourly,
        "commands": document["commands"],
    }


def hardware_in_words(entries: Sequence[Entry], config: Mapping[str, Any]) -> list[str]:
    """The cheapest hardware per token, and the cheapest fleet for the workload's rate."""
    priced = [each for each in entries if each["usd_per_million_tokens"] is not None]
    lines = [
        f"{each['engine']}: no rate is within the SLO, or no price is known."
        for each in entries
        if each["usd_per_million_tokens"] is None
    ]
    for each in sorted(priced, key=lambda one: float(one["usd_per_million_tokens"])):
        half = "" if each["ci95"] is None else f" ± {each['ci95']:.3g}"
        lines.append(
            f"{each['engine']}: {each['usd_per_million_tokens']:.3g}{half} USD per million output tokens, "
            f"{each['rate_per_s']:.3g} requests/s within the SLO on a replica of {each['usd_per_h']:.2f} USD/h."
        )
    fleets = [each for each in priced if each["fleet_usd_per_h"] is not None]
    if fleets:
        best = min(fleets, key=lambda one: float(one["fleet_usd_per_h"]))
        lines.append(
            f"Cheapest for {config['mean_rate_per_s']:.3g} requests/s: {best['replicas']} x {best['engine']}, "
            f"{best['fleet_usd_per_h']:.2f} USD/h, by the lower end of the interval of what one carries. Check it: "
            f"{best['commands'][-1]}"
        )
    return lines
