"""A batch's seconds by part, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass

from infermax_gym.cost.roofline.parts import Part

BARS = ("weights", "GEMM", "attention", "activations", "all-reduce", "floors")
"""Parts as shown, in this order."""

_BAR_OF = {
    "floors": "floors",
    "attention floors": "floors",
    "activations": "activations",
    "all-reduce": "all-reduce",
    "experts read": "weights",
    "experts multiplied": "GEMM",
}


@dataclass(frozen=True)
class Batch:
    """Prefills of a chunk behind resident tokens, and decodes behind contexts, all alike.

    Attributes:
        num_prefills: prefills.
        chunk: tokens of each.
        resident: tokens of each that are resident.
        num_decodes: decodes.
        context: tokens behind each.
    """

    num_prefills: int = 0
    chunk: int = 0
    resident: int = 0
    num_decodes: int = 0
    context: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that the batch computes."""
        return self.num_prefills * self.chunk + self.num_decodes

    @property
    def features(self) -> tuple[float, ...]:
        """The nine features of the cost model."""
        return (
            1.0,
            float(self.num_tokens),
            float(self.num_prefills > 0),
            float(self.num_prefills * (self.chunk**2 + 2 * self.chunk * self.resident)),
            float(self.num_prefills),
            float(self.num_prefills * self.resident),
            float(self.num_decodes > 0),
            float(self.num_decodes * self.context),
            float(self.num_decodes),
        )


@dataclass(frozen=True)
class Breakdown:
    """Where a batch's time goes.

    Attributes:
        seconds: all of it.
        bars: seconds of each of `BARS`.
        bound: "memory", "compute", "communication" or "overhead", whichever takes most.
    """

    seconds: float
    bars: dict[str, float]
    bound: str


def breakdown(parts: tuple[Part, ...], batch: Batch) -> Breakdown:
    """Divide a batch's seconds among the parts."""
    bars = dict.fromkeys(BARS, 0.0)
    bounds = dict.fromkeys(("memory", "compute", "communication", "overhead"), 0.0)
    for part in parts:
        seconds = seconds_of(part, batch.features)
        bound = part.bound
        if part.reading_s:  # a matrix product: what goes beyond reading its weights is compute
            bars["weights"] += part.reading_s
            bars["GEMM"] += seconds - part.reading_s
            bound = "compute" if seconds > part.reading_s else "memory"
        else:
            bars[_BAR_OF.get(part.name, "attention")] += seconds
        bounds[bound] += seconds
    return Breakdown(sum(bars.values()), bars, max(bounds, key=lambda name: bounds[name]))


def seconds_of(part: Part, batch_features: tuple[float, ...]) -> float:
    """Seconds of one part of a batch."""
    forms = [sum(a * b for a, b in zip(form, batch_features, strict=True)) for form in part.term]
    return min(forms) if part.concave else max(forms)
