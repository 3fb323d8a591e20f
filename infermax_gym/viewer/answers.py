"""What a document says, in sentences: the first is the answer, the others what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infermax_gym.evaluation import lookup
from infermax_gym.evaluation.figures import sorted_names
from infermax_gym.evaluation.report import slo_in_words
from infermax_gym.viewer.svg import number

Figures = Mapping[str, Mapping[str, Any]]

TODAY = {"vllm": "vLLM", "sglang-fcfs": "SGLang", "trt-no-evict": "TensorRT-LLM"}
"""What engines do by default today, and whose default it is."""

_ONLINE = ("none", "bound", "predicted")  # what an engine can know of output lengths
_SMALL = 0.005  # relative differences that sentences call none


def comparison_answer(document: Mapping[str, Any]) -> list[str]:
    """Of a comparison: who answers fastest, who serves the most within its limits, and how much is left to gain."""
    policies: Figures = document["policies"]
    online = [n for n in sorted_names(policies) if policies[n]["information"] in _ONLINE and _mean(policies, n)]
    if not online:
        return ["No policy that can run in an engine finished a request."]
    sentences = [_by_latency(policies, online)]
    if lookup(policies[online[0]], "goodput_per_s") is not None:
        sentences.append(_by_goodput(policies, online, document["config"]))
    oracles = [n for n in sorted_names(policies) if policies[n]["information"] == "oracle" and _mean(policies, n)]
    known = _of_oracles(policies, online[0], oracles)
    bounds = document.get("bounds")
    if bounds:
        known += (
            f" No schedule has a mean latency below {number(bounds['latency_s'])} s or a makespan below "
            f"{number(bounds['makespan_s'])} s: that is proven, and perhaps out of reach."
        )
    return [*sentences, known.strip()] if known else sentences


def _by_latency(policies: Figures, online: Sequence[str]) -> str:
    """The lowest mean latency beside the best of today's defaults, or beside the second where there is none."""
    best = online[0]
    text = f"{_named(best)} answers fastest: {number(_mean(policies, best))} s from arrival to last token on average"
    others = [n for n in online if n in TODAY] or online[1:]
    if not others:
        return text + "."
    if best in others:
        return f"{text}, the best of today's defaults." if best in TODAY else text + "."
    rival = others[0]
    gain = 1.0 - _mean(policies, best) / _mean(policies, rival)
    beside = f"the best of today's defaults, {_whose(rival)}" if rival in TODAY else f"the next, {rival}"
    if len(others) == 1 and rival in TODAY:
        beside = f"today's default, {_whose(rival)}"
    if gain < _SMALL:
        return f"{text}, as much as {beside}."
    return f"{text}, {100.0 * gain:.0f} % less than {beside} ({number(_mean(policies, rival))} s)."


def _by_goodput(policies: Figures, online: Sequence[str], config: Mapping[str, Any]) -> str:
    def goodput(name: str) -> float:
        return float(lookup(policies[name], "goodput_per_s") or 0.0)

    best = max(online, key=goodput)
    limits = f" ({slo_in_words(config)})" if config.get("slo") else ""
    if goodput(best) == 0.0:
        return f"No policy serves a request within its limits{limits}."
    text = f"{_named(best)} serves the most requests within their limits{limits}: {number(goodput(best))} per s"
    rivals = sorted((n for n in online if n in TODAY), key=goodput, reverse=True)
    if not rivals or best in rivals or goodput(rivals[0]) == 0.0:
        return text + "."
    gain = goodput(best) / goodput(rivals[0]) - 1.0
    return f"{text}, {100.0 * gain:.0f} % more than {_whose(rivals[0])} ({number(goodput(rivals[0]))})."


def _of_oracles(policies: Figures, best: str, oracles: Sequence[str]) -> str:
    if not oracles:
        return ""
    ratio = _mean(policies, oracles[0]) / _mean(policies, best) - 1.0
    words = f"{100.0 * abs(ratio):.0f} % {'less' if ratio < 0.0 else 'more'}"
    if abs(ratio) < _SMALL:
        words = "as much"
    told = f"{oracles[0]}, which is told every output length, needs {number(_mean(policies, oracles[0]))} s ({words})."
    return told[0].upper() + told[1:] if told[0].islower() and "-" not in oracles[0] else told


def capacity_answer(document: Mapping[str, Any]) -> list[str]:
    """Of capacities: which fleet carries the most, each replica; of fleets for a rate: which costs least."""
    config = document["config"]
    share = f"{100 * config['attainment']:g} % of the requests within {slo_in_words(config)}"
    if "fleets" in document:
        found = [row for row in document["fleets"] if row["num_replicas"] is not None]
        if not found:
            return [f"No fleet that was tried carries {number(config['for_rate'])} requests per s with {share}."]
        priced = [row for row in found if row["cost_usd_per_h"] is not None]
        best = min(priced or found, key=lambda row: row["cost_usd_per_h"] if priced else row["num_replicas"])
        price = f", {number(best['cost_usd_per_h'])} USD per hour" if priced else ""
        return [
            f"{best['num_replicas']:,} replicas of {best['cost']} with {best['policy']} carry "
            f"{number(config['for_rate'])} requests per s{price}, {share}."
        ]
    rows = [row for row in document["capacity"] if row["rate_per_replica_per_s"] is not None]
    if not rows:
        return ["No fleet was measured to its end."]
    best = max(rows, key=lambda row: row["rate_per_replica_per_s"])
    replicas = "a replica" if best["num_replicas"] == 1 else f"{best['num_replicas']:,} replicas"
    where = f"{replicas} of {best['cost']}"
    text = f"{best['policy']} carries the most on {where}: {number(best['rate_per_s'])} requests per s"
    same = [r for r in rows if r["policy"] in TODAY and r is not best and r["cost"] == best["cost"]]
    same = [r for r in same if r["num_replicas"] == best["num_replicas"] and r["rate_per_s"]]
    counts = f"What counts: {share}."
    if not same or best["policy"] in TODAY:
        return [f"{text}.", counts]
    rival = max(same, key=lambda row: row["rate_per_s"])
    gain = best["rate_per_s"] / rival["rate_per_s"] - 1.0
    halves = [row["ci95_per_s"] or 0.0 for row in (best, rival)]
    if best["rate_per_s"] - rival["rate_per_s"] < max(halves) or gain < _SMALL:
        return [f"{text}; {_whose(rival['policy'])} {number(rival['rate_per_s'])} is not measurably less.", counts]
    return [
        f"{text}, {100.0 * gain:.0f} % more than {_whose(rival['policy'])} ({number(rival['rate_per_s'])}).",
        counts,
    ]


def replay_answer(document: Mapping[str, Any]) -> list[str]:
    """Of a replay: how far the simulator is from the server."""
    config, error = document["config"], document["error"]
    parts = []
    for name, label in (("latency_s", "mean latency is"), ("ttft_s", "TTFT"), ("tpot_s", "TPOT")):
        off = error[name]["mean"]
        if off is not None:
            parts.append(f"{label} {100.0 * abs(off):.1f} % {'below' if off < 0.0 else 'above'}")
    if parts:
        parts[0] += " the server's"
    log = f"over {config['num_requests']:,} requests of {Path(str(config['log'])).name}"
    text = [f"The simulator's {', '.join([*parts, log])}." if parts else f"Nothing can be compared {log}."]
    median = document.get("median_request_error", {}).get("latency_s")
    if median is not None:
        text.append(f"A single request's latency is off by {100.0 * median:.1f} % in the median.")
    return text


def optimal_answer(document: Mapping[str, Any]) -> list[str]:
    """Of an instance: the best schedule, and whether any can be better."""
    what = "makespan" if document["objective"] == "makespan" else "mean latency"
    bound = f"{number(document['lower_bound_s'], 6)} s"
    if document["objective_s"] is None:
        if document["status"] == "infeasible":
            return ["No schedule meets the limits; that is proven."]
        return [f"No schedule was found; any has a {what} of at least {bound}."]
    text = f"The best schedule has a {what} of {number(document['objective_s'], 6)} s"
    if document["status"] == "optimal":
        return [f"{text}; none is better, which is proven."]
    above = document["gap"] / (1.0 - document["gap"]) if document["gap"] < 1.0 else None
    most = "" if above is None else f", so this one is at most {100.0 * above:.2f} % above the optimum"
    return [f"{text} so far.", f"None can be below {bound}{most}."]


def _mean(policies: Figures, name: str) -> float:
    return float(lookup(policies[name], "latency_s.mean") or 0.0)


def _whose(name: str) -> str:
    return f"{TODAY[name]}'s" if name in TODAY else name


def _named(name: str) -> str:
    return f"{TODAY[name]}'s default ({name})" if name in TODAY else name
