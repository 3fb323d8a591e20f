"""How the controllers of the zoo are bred: what each is scored by, sets, sees and is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.board.rivals import SIGMA
from experiments.board.scenarios import has_slos
from infermax_gym.agents.controller_layout import CONTROLLER_KNOBS
from infermax_gym.agents.objectives import Objective
from infermax_gym.envs.knobs.layout import KNOB_NAMES

CONTEXT = (
    "decode_context",
    "capacity",
    "decode_seconds",
    "free_blocks",
    "log_output",
    "log_output_spread",
    "arrivals_share",
    "mean_prompt",
    "backlog",
    "long_wait",
    "preemption_rate",
    "context_cost",
)
_UNINFORMED = tuple(k for k in CONTROLLER_KNOBS if k not in ("shed", "class_ttft"))


@dataclass(frozen=True)
class Breed:
    """How to make one shipped controller.

    Attributes:
        note: what it is, one line.
        objective: what it is scored by, in each scenario over what the rival reaches.
        rival: setting of the family that it is measured against; see `Rivals.per_cell`.
        scenarios: their names, by a test of the name.
        knobs: what it may set.
        features: what it may look at, besides the constant.
        start: which global setting of the family the search begins at.
        estimates_lengths: see `Controller`.
        classes: see `Controller`.
        sigma: see `Controller`.
        interval_s: see `Controller`.
        hinge: how many times a loss beyond the rival counts.
        stride: a generation plays every so-manieth scenario, in turn.
        generations: of the constant weights alone, then of all.
        population: candidates of a generation.
        num_slices: training trace slices of a scenario ...
        slices_at_once: ... of which a generation plays so many in each scenario, in turn.
    """

    note: str
    objective: Objective
    rival: str
    scenarios: Callable[[str], bool] = lambda name: True
    knobs: tuple[str, ...] = _UNINFORMED
    features: tuple[str, ...] = CONTEXT
    start: str = "mean"
    estimates_lengths: bool = True
    classes: bool = False
    sigma: float | None = None
    interval_s: float = 2.0
    hinge: float = 3.0
    stride: int = 2
    generations: tuple[int, int] = (30, 240)
    population: int = 20
    num_slices: int = 6
    slices_at_once: int = 1


BREEDS: dict[str, Breed] = {
    "generalist": Breed(
        "one controller for all traffic, memory, load and both models; knows no lengths",
        Objective(mean_latency=1.0, p99_latency=1.0),
        "mean",
        start="blend",
        hinge=2.0,
    ),
    "informed": Breed(
        "knows classes and noisy lengths, which it weighs against what requests have generated already",
        Objective(),
        "informed",
        lambda name: name.startswith(("mixed", "reasoning", "rollouts")),
        knobs=tuple(k for k in CONTROLLER_KNOBS if k != "shed"),
        classes=True,
        sigma=SIGMA,
        stride=1,
    ),
    "goodput": Breed(
        "as many requests as possible within their limits on first token and time per token",
        Objective(mean_latency=0.0, goodput=1.0),
        "goodput",
        has_slos,
        knobs=CONTROLLER_KNOBS,
        features=(*CONTEXT, "missed_share", "good_share"),
        classes=True,
        interval_s=1.0,
        generations=(30, 160),
    ),
    "knobs": Breed(
        "plays InferMaxKnobs-v0 at its default interval: sees the engine features, sets its knobs",
        Objective(),
        "mean",
        knobs=KNOB_NAMES,
        features=(
            "decode_context",
            "capacity",
            "decode_seconds",
            "waiting",
            "waiting_tokens",
            "oldest_wait",
            "preemption_rate",
        ),
        estimates_lengths=False,
        interval_s=5.0,
        generations=(20, 120),
    ),
}
