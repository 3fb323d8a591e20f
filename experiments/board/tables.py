"""The tables of docs/board/scoreboard.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.board.board import BOUND, Board, ratio
from experiments.board.rivals import CLAIRVOYANT_POLICIES, DEFAULTS
from experiments.board.scenarios import LOADS, MEMORIES, MODELS, TRAFFICS, has_slos
from infermax_gym.evaluation.statistics import Ratio

CEILING = ("clairvoyant", *CLAIRVOYANT_POLICIES)
TUNED = ("global", "global-blend", "per-cell", "per-cell-goodput")
GOODPUT_AGENT = "agent:goodput"
_LATENCY_POLICIES = (*DEFAULTS, "global", "global-blend", "per-cell", "informed", "clairvoyant")


def page(board: Board, num_slices: int) -> str:
    """All tables, for the scenarios that were measured."""
    scenarios = list(board.figures)
    parts = [
        _overall(board, scenarios),
        _by_traffic(board, scenarios),
        _gpu_cost(board, [c for c in scenarios if "per-cell-cost" in board.figures[c]]),
        _goodput(board, [c for c in scenarios if has_slos(c)]),
        _every_scenario(board, scenarios, num_slices),
    ]
    return "\n".join(part for part in parts if part)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def short(share: Ratio) -> str:
    """A ratio with its interval, two digits."""
    return f"{share.value:.3f} [{share.low:.2f}, {share.high:.2f}]"


def _agents(board: Board, scenarios: Sequence[str]) -> list[str]:
    """Agents that ran in all these scenarios, in the order in which they ran."""
    ran = [name for name in board.figures[scenarios[0]] if name.startswith("agent:")]
    return [name for name in ran if all(name in board.figures[c] for c in scenarios)]


def label(name: str) -> str:
    """A policy as the tables name it."""
    return f"**{name.removeprefix('agent:')}** (agent)" if name.startswith("agent:") else name


def _overall(board: Board, scenarios: Sequence[str]) -> str:
    """Everybody over all scenarios: latency against per-cell, tail against global, the worst scenario."""
    rows = []
    for name in (*_LATENCY_POLICIES, *_agents(board, scenarios)):
        each = board.log_ratios(scenarios, name, "per-cell", "mean").mean(axis=1)
        worst = int(each.argmax())
        rows.append(
            (
                label(name),
                short(ratio(board.log_ratios(scenarios, name, "per-cell", "mean"))),
                short(ratio(board.log_ratios(scenarios, name, "global", "mean"))),
                f"{np.exp(each[worst]):.2f} ({scenarios[worst]})",
                short(ratio(board.log_ratios(scenarios, name, "global", "p99"))),
                short(ratio(board.log_ratios(scenarios, name, "per-cell", "busy"))),
            )
        )
    header = (
        "policy",
        "mean E2E / per-cell",
        "mean E2E / global",
        "worst scenario / per-cell",
        "p99 E2E / global",
        "busy / per-cell",
    )
    return f"### Over all {len(scenarios)} scenarios\n\n{table(header, rows)}"


def _by_traffic(board: Board, scenarios: Sequence[str]) -> str:
    """Each kind of traffic: mean latency over per-cell's, and how much of the way to the ceiling is gone."""
    agents = [a for a in _agents(board, scenarios) if a in ("agent:generalist", "agent:knobs", "agent:informed")]
    rows = []
    for traffic in TRAFFICS:
        own = [c for c in scenarios if c.startswith(f"{traffic}-")]
        if not own:
            continue
        best = ratio(np.concatenate([_against(board, c, board.best(c, DEFAULTS, "mean")) for c in own]))
        ceiling = ratio(np.concatenate([_against(board, c, board.best(c, CEILING, "mean")) for c in own]))
        columns = [f"{best.value:.3f}"]
        columns += [f"{ratio(board.log_ratios(own, n, 'per-cell', 'mean')).value:.3f}" for n in ("global", "informed")]
        for agent in agents:
            share = ratio(board.log_ratios(own, agent, "per-cell", "mean"))
            gap = (1.0 - share.value) / (1.0 - ceiling.value) if ceiling.value < 0.995 else 0.0
            columns.append(short(share) + (f", {100 * gap:.0f} %" if gap > 0.005 else ""))
        bound = ratio(board.log_ratios(own, BOUND, "per-cell", "mean"))
        rows.append((traffic, *columns, f"{ceiling.value:.3f}", f"{bound.value:.2f}"))
    names = (label(a) for a in agents)
    header = ("traffic", "best default", "global", "informed rule", *names, "clairvoyant", "certified bound")
    title = (
        "### By traffic: mean E2E over per-cell's, and the share of the gap from per-cell to clairvoyant that is closed"
    )
    return f"{title}\n\n{table(header, rows)}"


def _against(board: Board, scenario: str, policy: str) -> np.ndarray:
    return board.log_ratios([scenario], policy, "per-cell", "mean")


def _gpu_cost(board: Board, scenarios: Sequence[str]) -> str:
    """GPU cost where decodes are long."""
    if not scenarios:
        return ""
    rows = []
    for traffic in ("reasoning", "rollouts"):
        own = [c for c in scenarios if c.startswith(traffic)]
        if own:
            names = ["global", "per-cell", "per-cell-cost", *_agents(board, own), "clairvoyant-cost", BOUND]
            values = [short(ratio(board.log_ratios(own, n, "per-cell-cost", "busy"))) for n in names]
            header = ("traffic", *(label(n) for n in names))
            rows.append(table(header, [(traffic, *values)]))
    return "### GPU cost: busy seconds over those of per-cell tuned for them\n\n" + "\n".join(rows)


def _how_often(ratios: Sequence[float]) -> str:
    """In how many scenarios the agent has 5 % more than somebody, and how often not much less."""
    more, enough = (sum(r >= limit for r in ratios) for limit in (1.05, 0.99))
    return f"In {more} of {len(ratios)} scenarios the agent has at least 5 % more, in {enough} at least 99 % of"


def _goodput(board: Board, scenarios: Sequence[str]) -> str:
    """Requests per second within their limits."""
    if not scenarios or GOODPUT_AGENT not in board.figures[scenarios[0]]:
        return ""
    rows, tuned, anybody, in_time = [], [], [], []
    full = 0
    for scenario in scenarios:
        rule = board.best(scenario, TUNED, "goodput")
        best = board.best(scenario, (*DEFAULTS, *TUNED), "goodput")
        default = board.best(scenario, DEFAULTS, "goodput")
        shares = [ratio(board.log_ratios([scenario], GOODPUT_AGENT, name, "goodput")) for name in (rule, best)]
        tuned.append(shares[0].value)
        anybody.append(shares[1].value)
        names = (default, rule, "informed-goodput", GOODPUT_AGENT, "clairvoyant-goodput", BOUND)
        values = [f"{board.mean(scenario, n, 'goodput'):.3f}" for n in names]
        met = [board.mean(scenario, n, "in_time") for n in (best, GOODPUT_AGENT, BOUND)]
        in_time.append(ratio(board.log_ratios([scenario], GOODPUT_AGENT, rule, "in_time")).value)
        full += met[0] > 1.0 / 1.05
        first = (scenario, f"{values[0]} ({default})", f"{values[1]} ({rule})", *values[2:])
        rows.append(
            (*first, ", ".join(f"{100.0 * x:.1f}" for x in met), str(shares[0]), f"{shares[1].value:.3f} of {best}")
        )
    header = (
        "scenario",
        "best default",
        "best tuned rule",
        "informed for goodput",
        "**goodput** (agent)",
        "clairvoyant for goodput",
        BOUND,
        "% in time: best rule, agent, bound",
        "agent / best tuned rule",
        "agent / best of all rules",
    )
    informed, clairvoyant, agent = (
        ratio(board.log_ratios(scenarios, name, "per-cell-goodput", "goodput"))
        for name in ("informed-goodput", "clairvoyant-goodput", GOODPUT_AGENT)
    )
    text = (
        f"{_how_often(tuned)} the best tuned rule. In requests in time, whatever the makespan: "
        f"{_how_often(in_time).lower()} it. In {full} scenarios the best rule has so many in time that 5 % more do not "
        f"exist. {_how_often(anybody)} the best of all rules, defaults "
        f"included; each chosen on the same trace slices. Over all scenarios the agent has "
        f"{agent} of per-cell for goodput, the informed rule {informed}, the clairvoyant {clairvoyant}.\n"
    )
    return f"### Goodput: requests per second that meet their limits\n\n{text}\n{table(header, rows)}"


def _every_scenario(board: Board, scenarios: Sequence[str], num_slices: int) -> str:
    """The latency of everybody who matters, scenario by scenario."""
    agents = [a for a in _agents(board, scenarios) if a in ("agent:generalist", "agent:knobs", "agent:informed")]
    rows = []
    for scenario in scenarios:
        default, ceiling = board.best(scenario, DEFAULTS, "mean"), board.best(scenario, CEILING, "mean")
        names = ("global", "per-cell", "informed", *agents)
        values = [f"{board.mean(scenario, n, 'mean'):.2f}, {board.mean(scenario, n, 'p99'):.0f}" for n in names]
        versus = [short(ratio(board.log_ratios([scenario], a, "per-cell", "mean"))) for a in agents]
        first = f"{board.mean(scenario, default, 'mean'):.2f}, {board.mean(scenario, default, 'p99'):.0f} ({default})"
        last = f"{board.mean(scenario, ceiling, 'mean'):.2f} ({ceiling})"
        rows.append((scenario, first, *values, *versus, last, f"{board.mean(scenario, BOUND, 'mean'):.2f}"))
    versus_names = (f"{a.removeprefix('agent:')} / per-cell" for a in agents)
    labels = (label(a) for a in agents)
    header = (
        "scenario",
        "best default",
        "global",
        "per-cell",
        "informed rule",
        *labels,
        *versus_names,
        "clairvoyant",
        BOUND,
    )
    what = (
        f"Means over {num_slices} held-out trace slices; mean and p99 E2E in seconds. {len(TRAFFICS)} kinds of traffic "
        f"x {len(MEMORIES)} memories x {len(LOADS)} loads x {len(MODELS)} models.\n"
    )
    return f"### Every scenario\n\n{what}\n{table(header, rows)}"
