"""What a search for flags found, as one object and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from infermax_gym.evaluation.contenders import information_of
from infermax_gym.evaluation.figures import combine, lookup
from infermax_gym.evaluation.statistics import mean_and_ci95
from infermax_gym.evaluation.tuning import Outcome
from infermax_gym.evaluation.tuning_objective import COST, Figures, Gain, Objective
from infermax_gym.evaluation.tuning_search import Candidate, Trials
from infermax_gym.evaluation.tuning_space import values_of

_WORSE = 1.1  # a side effect above this factor is worth a sentence
_SIDE_EFFECTS = (("mean latency", "latency_s.mean"), ("p99 latency", "latency_s.p99"), ("p99 TTFT", "ttft_s.p99"))

Document = dict[str, Any]


def tuning_document(config: Mapping[str, Any], outcome: Outcome) -> Document:
    """The object that `infermax tune --json` prints (docs/tune.md), without its commands.

    Args:
        config: every option as it was understood.
        outcome: what came out.
    """
    problem, objective = outcome.problem, outcome.problem.objective
    has_verdict = outcome.num_held_out > 0
    document: Document = {
        "schema": 1,
        "config": {**config, "objective": objective.name, "figure": objective.figure, "better": objective.better},
        "today": {
            "id": 0,
            "flags": values_of(problem.space, outcome.today.setting, problem.config),
            **_measured(outcome, outcome.today),
        },
        "flags": _flags(outcome, has_verdict),
        "policy": _policy(outcome, has_verdict),
        "bound": outcome.bound,
        "candidates": [_candidate(outcome, each) for each in outcome.candidates],
        "rungs": [asdict(rung) for rung in outcome.search.rungs],
        "complete": outcome.complete,
        "wall_s": outcome.wall_s,
    }
    if outcome.interrupted:
        document["interrupted"] = True
    return document


def recommended(outcome: Outcome, candidate: Candidate | None) -> bool:
    """Whether held-out windows show that a candidate is better than today's defaults."""
    return candidate is not None and outcome.num_held_out > 1 and outcome.gain(candidate).recommended


def flags_in_words(candidate: Candidate) -> str:
    """Its flags as one types them."""
    return " ".join(
        name if choice.value == "on" else f"{name} {choice.value}" for name, choice in candidate.setting.choices.items()
    )


def name_of(candidate: Candidate) -> str:
    """What people call it."""
    flags = flags_in_words(candidate)
    if candidate.kind == "policy":
        return f"{candidate.policy} {flags}".strip()
    return flags or "today's defaults"


def _flags(outcome: Outcome, has_verdict: bool) -> Document:
    best = outcome.flags
    good = recommended(outcome, best)
    shown = best if good and best is not None else outcome.today
    return {
        "id": shown.id,
        "flags": _changed(shown),
        **_measured(outcome, shown),
        "recommended": good,
        "gain": _gain(outcome, best) if has_verdict else None,
    }


def _policy(outcome: Outcome, has_verdict: bool) -> Document | None:
    best = outcome.policy
    if best is None:
        return None
    return {
        "id": best.id,
        "name": best.policy,
        "flags": _changed(best),
        **_measured(outcome, best),
        "recommended": recommended(outcome, best),
        "gain": _gain(outcome, best) if has_verdict else None,
    }


def _gain(outcome: Outcome, candidate: Candidate | None) -> Document | None:
    if candidate is None:
        return None
    found = outcome.gain(candidate)
    return {"id": candidate.id, "measure": found.measure, "value": found.value, "low": found.low, "high": found.high}


def _changed(candidate: Candidate) -> Document:
    return {name: choice.value for name, choice in candidate.setting.choices.items()}


def _measured(outcome: Outcome, candidate: Candidate) -> Document:
    """Figures on the held-out windows, else on those that it was searched on."""
    count = outcome.num_held_out
    runs = outcome.held_out.figures(candidate.id, count) if count else _searched(outcome.search, candidate)
    what = {"engine": candidate.config.cost.name, "information": information_of(candidate.contender)}
    if not runs:
        return {**what, "figures": None, "ci95": None}
    return {
        **what,
        "figures": combine(runs, lambda values: mean_and_ci95(values)[0]),
        "ci95": combine(runs, lambda values: mean_and_ci95(values)[1]) if len(runs) > 1 else None,
    }


def _searched(trials: Trials, candidate: Candidate) -> list[Figures]:
    return trials.figures(candidate.id, trials.num_done(candidate.id))


def _candidate(outcome: Outcome, candidate: Candidate) -> Document:
    runs = _searched(outcome.search, candidate)
    return {
        "id": candidate.id,
        "kind": candidate.kind,
        "name": name_of(candidate),
        "policy": candidate.policy,
        "flags": _changed(candidate),
        "values": _values(outcome, outcome.search, candidate),
        "figures": combine(runs, lambda values: mean_and_ci95(values)[0]) if runs else None,
        "held_out": _values(outcome, outcome.held_out, candidate) if outcome.held_out.num_done(candidate.id) else None,
    }


def _values(outcome: Outcome, trials: Trials, candidate: Candidate) -> list[float | None]:
    found = [trials.runs.get((candidate.id, window)) for window in range(len(trials.windows))]
    values = [math.nan if figures is None else outcome.problem.objective.value(figures) for figures in found]
    return [value if math.isfinite(value) else None for value in values]


# -- in sentences --------------------------------------------------------------------------------------------------


def answer(document: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """What to run, in sentences.

    Args:
        document: of `tuning_document`.
        outcome: what it is about.
    """
    objective, windows = outcome.problem.objective, outcome.num_held_out
    if windows < 2:
        return _unfinished(outcome)
    if objective is COST and lookup(document["today"]["figures"], objective.figure) is None:
        return [_why_no_cost(outcome)]
    lines = [f"Today's defaults give {_figure(objective, document['today']['figures'])}."]
    lines += _about_flags(document, outcome)
    lines += _about_policy(document, outcome)
    if outcome.bound is None and outcome.has_bound:
        lines.append("There was no time for the bound: a larger --budget computes it.")
    elif outcome.bound is None:
        lines.append("No bound is proven here (docs/tune.md says where there is one).")
    elif objective.figure == "slo_attainment" and outcome.bound > 0.9995:
        lines.append("No limit is proven: as far as the bound can tell, every request could be in time.")
    else:
        best = "above" if objective.better == "high" else "below"
        lines.append(f"Nobody can get {best} {objective.shown(outcome.bound)} on this engine, whatever it knows.")
    if not outcome.complete:
        lines.append("The search ran out of time: a larger --budget tries more.")
    return lines


def _why_no_cost(outcome: Outcome) -> str:
    costs = [figures["cost"] for figures in outcome.held_out.figures(0, outcome.num_held_out)]
    if any(cost["usd_per_h"] is None for cost in costs):
        return "The engine has no price, so nothing can be said of its cost: take one of `infermax list costs`."
    if any(math.isinf(cost["rate_per_s"]) for cost in costs):
        return "Windows are too short: their requests are within the SLO at any rate. Take more --window-requests."
    return "Under today's defaults no rate is within the SLO in some window, so there is no cost to compare with."


def _unfinished(outcome: Outcome) -> list[str]:
    objective = outcome.problem.objective
    lines = ["The held-out windows were not run, so nothing is recommended."]
    best = outcome.flags
    if best is not None and best.id != 0:
        runs = _searched(outcome.search, best)
        today = outcome.search.figures(0, len(runs))
        lines.append(
            f"Best so far: {name_of(best)}, with {_figure(objective, combine(runs, _mean))}; today's defaults had "
            f"{_figure(objective, combine(today, _mean))} on {'these windows' if len(runs) > 1 else 'that window'}."
        )
    return lines


def _about_flags(document: Mapping[str, Any], outcome: Outcome) -> list[str]:
    objective, best = outcome.problem.objective, outcome.flags
    tried = sum(each.kind == "flags" and outcome.search.num_done(each.id) > 0 for each in outcome.candidates)
    today, flags = document["today"]["figures"], document["flags"]
    if not flags["recommended"]:
        lines = [f"Today's defaults are as good as any setting tried ({tried} of them)."]
        if best is not None and best.id != 0:
            lines.append(
                f"The best one looked better in the search, but not surely on held-out windows: {name_of(best)}, "
                f"{gain_in_words(outcome.gain(best), objective)}."
            )
        return lines
    assert best is not None
    lines = [
        f"The best flags give {_figure(objective, flags['figures'])}, {gain_in_words(outcome.gain(best), objective)}: "
        f"{name_of(best)}."
    ]
    return lines if objective is COST else lines + _side_effects(flags["figures"], today)


def _about_policy(document: Mapping[str, Any], outcome: Outcome) -> list[str]:
    policy, best, objective = document["policy"], outcome.policy, outcome.problem.objective
    if policy is None or best is None:
        return []
    sure = "" if policy["recommended"] else "not surely better than today's defaults, "
    lines = [
        f"Of our policies, {name_of(best)} gives {_figure(objective, policy['figures'])}, {sure}"
        f"{gain_in_words(outcome.gain(best), objective)}."
    ]
    if objective is COST or not policy["recommended"]:  # costs are not of the rate that the other figures are of
        return lines
    return lines + _side_effects(policy["figures"], document["today"]["figures"])


def _side_effects(figures: Figures, today: Figures) -> list[str]:
    """What gets clearly worse on the way."""
    worse = []
    for words, path in _SIDE_EFFECTS:
        now, then = lookup(figures, path), lookup(today, path)
        if now is not None and then is not None and now > _WORSE * then:
            worse.append(f"{words} {now:.3g} s instead of {then:.3g} s")
    return [f"The price: {', '.join(worse)}."] if worse else []


def gain_in_words(found: Gain, objective: Objective) -> str:
    """A gain with its 95 % interval."""
    if not math.isfinite(found.value):
        return "which cannot be compared"
    if found.measure == "ratio":
        numbers = [f"{100.0 * (value - 1.0):+.1f} %" for value in (found.value, found.low, found.high)]
    else:
        unit = " points" if objective.figure == "slo_attainment" else ""
        numbers = [f"{objective.scale * value:+.2f}{unit}" for value in (found.value, found.low, found.high)]
    lost = "" if found.serves_as_many else ", but it serves fewer requests"
    return f"{numbers[0]} (95 % interval {numbers[1]} to {numbers[2]}){lost}"


def _figure(objective: Objective, figures: Figures | None) -> str:
    if figures is None:
        return "nothing yet"
    shown = objective.shown(lookup(figures, objective.figure))
    if objective.figure == "slo_attainment" and figures.get("goodput_per_s") is not None:
        return f"{shown} ({figures['goodput_per_s']:.3g} requests/s)"
    return shown


def _mean(values: Sequence[float]) -> float:
    return mean_and_ci95(values)[0]
