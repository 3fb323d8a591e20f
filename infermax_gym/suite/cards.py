"""The reference scores that come with the suite: what the defaults reach, what nobody can beat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.suite.tasks import VERSION, Task

Floats = NDArray[np.float64]

DEFAULTS = (
    "vllm",
    "vllm-0.13",
    "sarathi",
    "trt-max-utilization",
    "lightllm",
    "srf",
    "shortest-prompt-first",
    "least-attained-service",
    "hrrn",
    "fcfs-headroom",
    "spf-headroom",
)
"""Policies of the table as people run them, none of which knows output lengths or leaves the engine's budget."""
DEFAULT_ROUTERS = ("round-robin", "least-outstanding", "queued-tokens", "kv-share", "vllm-dp", "llumnix", "sal")
"""Routers likewise."""


@dataclass(frozen=True, eq=False)
class Card:
    """The references of a task, one figure per test episode, in the order of `Task.episodes`.

    Attributes:
        digest: of the task, see `infermax_gym.suite.episodes.digest`.
        defaults: the best default of each variant, by name.
        zero: (n,) objective of the best default of the episode's variant: score 0.
        one: (n,) proven optimum or certified bound: score 1.
        span: (n,) mean of zero - one over the episodes of the variant.
        references: (n,) objectives by name: random, every default, tuned, clairvoyant, plan.
        notes: what else is known of a reference, such as the knobs of the tuned rule.
    """

    digest: str
    defaults: tuple[str, ...]
    zero: Floats
    one: Floats
    span: Floats
    references: Mapping[str, Floats]
    notes: Mapping[str, Any]

    def score(self, objective: ArrayLike) -> Floats:
        """(..., n) scores of objectives: 0 is the best default, 1 the bound or the optimum, by the variant's mean."""
        return np.asarray((self.zero - np.asarray(objective, np.float64)) / self.span, np.float64)


def card_file(suite: str = VERSION) -> Path:
    """Where the references of a version are."""
    return Path(__file__).parent / f"{suite}.json"


@lru_cache(maxsize=4)
def _document(suite: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(card_file(suite).read_text(encoding="utf-8"))
    return document


def card_of(task: Task, suite: str = VERSION) -> Card:
    """The card of a task."""
    return make_card(task, _document(suite)["tasks"][task.id])


def make_card(task: Task, record: Mapping[str, Any]) -> Card:
    """A card from its record in the file: the best default of each variant is found here."""
    references = {name: np.array(values, np.float64) for name, values in record["references"].items()}
    one = np.array(record["yardstick"], np.float64)
    names = DEFAULT_ROUTERS if task.is_fleet else DEFAULTS
    count = task.num_test_seeds
    defaults, zero, span = [], [], []
    for i in range(len(task.test)):
        part = slice(i * count, (i + 1) * count)
        best = min(names, key=lambda name: references[name][part].mean())
        defaults.append(best)
        zero.append(references[best][part])
        span.append(np.full(count, (references[best][part] - one[part]).mean()))
    return Card(
        record["digest"],
        tuple(defaults),
        np.concatenate(zero),
        one,
        np.concatenate(span),
        references,
        record.get("notes", {}),
    )
