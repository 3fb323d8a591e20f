"""The cards of the suite in docs/suite.md: `python -m experiments.suite.page`; `--check` compares."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from experiments.studies.sections import put
from infermax_gym.suite.cards import DEFAULT_ROUTERS, DEFAULTS, Card, card_of
from infermax_gym.suite.tasks import VERSION, Task, Variant, short_name, tasks_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "suite.md"
MARKER = "cards"
_HIDDEN = {"num_requests", "backlog", "workloads", "costs", "num_kv_tokens", "reward"}


def cards() -> str:
    """All cards."""
    return "\n\n".join(_card(task, card_of(task)) for task in tasks_of(VERSION))


def _card(task: Task, card: Card) -> str:
    unit = "mean latency, seconds" if task.objective == "latency" else "share of requests that miss a limit"
    per = f", {task.num_test_seeds} for each variant" if len(task.test) > 1 else ""
    settings = ", ".join(f"`{name}={value!r}`" for name, value in task.settings.items() if name not in _HIDDEN)
    facts = [
        f"- Built on `{task.environment}`; {task.horizon} requests an episode.",
        f"- Train: {_variants(task, task.train)}.",
        f"- Test: {_variants(task, task.test)}. {len(task.episodes())} episodes{per}.",
        f"- Output lengths: information `{task.information}`. Figure: {unit}.",
        f"- Score 1: {'the proven optimum' if task.yardstick == 'optimum' else _BOUND[_kind(task)]}.",
        f"- Settings: {settings}.",
        f"- Digest: `{card.digest[:16]}`.",
    ]
    return f"### {short_name(task)}: `{task.id}`\n\n{task.title[0].upper()}{task.title[1:]}.\n\n" + "\n".join(
        [*facts, "", _references(task, card)]
    )


_BOUND = {
    "engine": "a certified bound (docs/optimum.md)",
    "misses": "a certified bound on how many first tokens can be in time, which forgets the limit on TPOT",
    "fleet": "a certified bound, the larger of each request alone and one engine as fast as all",
}


def _kind(task: Task) -> str:
    return "fleet" if task.is_fleet else "misses" if task.objective == "misses" else "engine"


def _variants(task: Task, variants: tuple[Variant, ...]) -> str:
    load = "requests/s a replica" if task.is_fleet else "times the arrival times"
    return "; ".join(f"{v.name} ({v.num_kv_tokens:,} KV tokens, {v.load:g} {load})" for v in variants)


def _references(task: Task, card: Card) -> str:
    defaults = DEFAULT_ROUTERS if task.is_fleet else DEFAULTS
    lines = ["| reference | figure | score |", "|---|--:|--:|"]
    for name, values in card.references.items():
        label = f"`{name}`" if name in defaults else _LABELS[name].format(**card.notes)
        lines.append(f"| {label} | {values.mean():.4g} | {card.score(values).mean():.3f} |")
    best = ", ".join(f"`{name}`" for name in dict.fromkeys(card.defaults))
    lines.append(f"| best default of each variant ({best}) | {card.zero.mean():.4g} | 0 |")
    lines.append(f"| {'optimum' if task.yardstick == 'optimum' else 'bound'} | {np.mean(card.one):.4g} | 1 |")
    return "\n".join(lines)


_LABELS = {
    "random": "random legal play",
    "tuned": "tuned rule: {tuned}",
    "clairvoyant": "clairvoyant rule: `{clairvoyant}`",
    "plan": "best plan, {plan_seconds:g} s of search, proven for {num_proven}",
}


def main() -> int:
    """Write the page, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    current = PAGE.read_text(encoding="utf-8")
    page = put(current, MARKER, cards())
    if parser.parse_args().check:
        print("docs/suite.md is up to date" if page == current else "docs/suite.md is not what the cards give")
        return int(page != current)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
