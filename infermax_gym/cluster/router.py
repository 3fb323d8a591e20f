"""A router as data: which replicas it looks at, and the score by which it picks one.

A router sees signals of each replica (`SIGNALS`, docs/cluster.md says from when) and the arriving request. It takes
`num_choices` replicas at random, or all of them, and sends the request to the one with the smallest score. Replicas
that can never hold the request are no candidates.

Ties go to the candidate next in line after the replica chosen last, in the order of their numbers and around; among
sampled replicas, to the one drawn first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Information, Policy

SIGNALS = (
    "num_waiting",
    "num_running",
    "waiting_tokens",
    "prefill_tokens",
    "free_kv_tokens",
    "released_tokens_per_s",
)
"""What a replica tells: requests sent to it that do not run (those it has not looked at yet included); running
requests; known tokens of the waiting requests (prompt, and what they had generated before a preemption); tokens still
to be prefilled, of waiting and running requests; free KV tokens; tokens of finished requests (prompt and output), which
gave back as much KV, per second of its iterations so far."""

CONSTANTS = ("kv_tokens", "prefill_tokens_per_s")
"""What the router knows of a replica from the start: KV capacity in tokens; tokens per second of an iteration that
spends the whole token budget on one prefill."""


class Score(IntEnum):
    """What the chosen replica has least of."""

    WEIGHTED = 0  # weights . SIGNALS; with no weights everything ties
    KV_SHARE = 1  # (used + waiting tokens) / capacity
    FREENESS = 2  # minus (free - waiting tokens) / requests there; an empty replica is best
    PREFILL_BY_BATCH = 3  # (prefill tokens there + prompt - match) x requests there
    START_DELAY = 4  # estimated seconds until the request can start
    PREFIX = 5  # a rule in place of a score: the longest match, unless loads differ too much (docs/cluster.md)
    NORMALISED = 6  # a rule: the largest weighted sum of matched share, queue share and free KV share
    E2 = 7  # a rule: the lightest owner of a long match, else the cheapest
    DEFICIT = 8  # a rule: the longest match where the tenant has credit left
    AHEAD = 9  # a rule: where the request would finish first, by running a copy of each replica ahead


_RULES = (Score.PREFIX, Score.NORMALISED, Score.E2, Score.DEFICIT)


@dataclass(frozen=True)
class Router:
    """One policy of the table of routers.

    Attributes:
        name: kebab-case.
        score: see `Score`.
        weights: of WEIGHTED, one per entry of SIGNALS.
        num_choices: replicas drawn at random, without repetition, of which the best is taken; 0 looks at all.
        sticky_s: a request goes where the last one of its session went, if that arrived at most so many seconds before
            and the replica can hold this one; others are chosen for. 0: sessions mean nothing.
        uses_prefixes: whether it keeps a map of the prefixes that it has sent to each replica (docs/cluster.md);
            without it nothing matches.
        least_match: of PREFIX: share of the prompt from which on a match counts.
        most_difference: of PREFIX: requests by which the fullest replica may exceed the emptiest ...
        most_ratio: ... and their ratio; beyond both, the emptiest gets the request.
        share_weights: of NORMALISED: of the matched share of the prompt, of the queue, of free KV.
        recent_s: of E2: for how long a request counts as load.
        horizon_s: of AHEAD: how far copies run at most.
        first_guess_tokens: of AHEAD: output length that requests are taken to have before any has finished.
        quantum_tokens: of DEFICIT: credit that a tenant gets at each replica once it has used it up everywhere.
        information: what it knows about output lengths.
        prediction_sigma: error of the predicted lengths, as of a `Policy`.
        source: paper or code the policy follows.
        note: one line, good and bad at.

    Raises:
        ValueError: a setting is out of range.
    """

    name: str
    score: Score = Score.WEIGHTED
    weights: tuple[float, ...] = (0.0,) * len(SIGNALS)
    num_choices: int = 0
    sticky_s: float = 0.0
    uses_prefixes: bool = False
    least_match: float = 0.3
    most_difference: float = 64.0
    most_ratio: float = 1.5
    share_weights: tuple[float, float, float] = (2.0, 1.0, 1.0)
    recent_s: float = 180.0
    quantum_tokens: int = 16_384
    horizon_s: float = 60.0
    first_guess_tokens: int = 256
    information: Information = Information.NONE
    prediction_sigma: float = 0.0
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.weights) != len(SIGNALS) or not all(map(math.isfinite, self.weights)):
            raise ValueError(f"router {self.name}: weights must be {len(SIGNALS)} numbers ({', '.join(SIGNALS)})")
        if not 0 <= self.num_choices <= MOST_CHOICES:
            raise ValueError(f"router {self.name}: num_choices must be in 0..{MOST_CHOICES}, got {self.num_choices}")
        if not self.sticky_s >= 0.0:
            raise ValueError(f"router {self.name}: sticky_s must not be negative, got {self.sticky_s}")
        if self.score in _RULES and (self.num_choices or not self.uses_prefixes):
            raise ValueError(f"router {self.name}: {self.score.name} looks at all replicas and uses prefixes")
        if self.score == Score.AHEAD and self.num_choices:
            raise ValueError(f"router {self.name}: AHEAD looks at all replicas")
        if self.uses_predictions and self.score != Score.AHEAD:
            raise ValueError(f"router {self.name}: {self.score.name} has no use for predicted lengths")
        limits = (self.least_match, self.most_difference, self.most_ratio)
        if not all(math.isfinite(limit) and limit >= 0.0 for limit in limits):
            raise ValueError(f"router {self.name}: the limits of PREFIX must be finite and not negative, got {limits}")
        if len(self.share_weights) != 3 or not all(math.isfinite(w) and w >= 0.0 for w in self.share_weights):
            raise ValueError(
                f"router {self.name}: share_weights must be three finite numbers of at least 0 (prefix, queue, KV)"
            )
        if not self.recent_s > 0.0:
            raise ValueError(f"router {self.name}: recent_s must be positive, got {self.recent_s}")
        if not self.horizon_s > 0.0:
            raise ValueError(f"router {self.name}: horizon_s must be positive, got {self.horizon_s}")
        if self.first_guess_tokens < 1:
            raise ValueError(
                f"router {self.name}: first_guess_tokens must be at least 1, got {self.first_guess_tokens}"
            )
        if self.quantum_tokens < 1:
            raise ValueError(f"router {self.name}: quantum_tokens must be at least 1, got {self.quantum_tokens}")

    @property
    def needs_signals(self) -> bool:
        """Whether its choices depend on the state of the replicas."""
        return self.score not in (Score.WEIGHTED, Score.E2, Score.DEFICIT) or any(self.weights)

    @property
    def uses_predictions(self) -> bool:
        """Whether it asks for predicted output lengths."""
        return self.information in (Information.PREDICTED, Information.ORACLE)

    @property
    def predictor(self) -> Policy:
        """A policy that is told the same, for who predicts lengths for policies."""
        return Policy(self.name, information=self.information, prediction_sigma=self.prediction_sigma)


KNOBS = (
    "score",
    "weights",
    "num_choices",
    "uses_prefixes",
    "least_match",
    "most_difference",
    "most_ratio",
    "share_weights",
    "recent_s",
    "quantum_tokens",
    "horizon_s",
    "first_guess_tokens",
    "uses_predictions",
    "needs_signals",
)
"""What the compiled loop reads of a router."""

MOST_CHOICES = 16


def signal_weights(**weights: float) -> tuple[float, ...]:
    """Weights by signal name, zero where not named.

    Example:
        >>> signal_weights(num_waiting=4.0, num_running=1.0)
        (4.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    """
    unknown = set(weights) - set(SIGNALS)
    if unknown:
        raise ValueError(f"unknown signal {sorted(unknown)[0]!r}; known: {', '.join(SIGNALS)}")
    return tuple(float(weights.get(name, 0.0)) for name in SIGNALS)


@dataclass(frozen=True)
class Arrival:
    """What a router written in Python gets to see at an arrival.

    Attributes:
        request: number of the request in the workload.
        arrival_s: now.
        num_prompt_tokens: of the request.
        priority: of the request; smaller is more urgent.
        signals: (len(SIGNALS), num_replicas) float64, as fresh as the fleet says. A view: copy what is to be kept.
        constants: (len(CONSTANTS), num_replicas) float64, a view.
        candidates: (num_replicas,) bool, which replicas can hold the request.
        matched_tokens: (num_replicas,) int64, tokens of the prompt that are presumably in a replica's prefix cache, by
            the router's own map; a view.
    """

    request: int
    arrival_s: float
    num_prompt_tokens: int
    priority: int
    signals: NDArray[np.float64]
    constants: NDArray[np.float64]
    candidates: NDArray[np.bool_]
    matched_tokens: NDArray[np.int64]


@runtime_checkable
class PythonRouter(Protocol):
    """A router written in Python: slower than a policy of the table and equal in rights."""

    @property
    def name(self) -> str:
        """Its name in results."""

    def choose(self, arrival: Arrival) -> int:
        """The replica that gets the request: a candidate."""
