"""A request of vLLM as a policy sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "infermax_"
HINTS = ("predicted_output_tokens", "ttft_slo_s", "tpot_slo_s", "slo_class")
"""What a client may say of a request in `vllm_xargs` (`extra_args`), each with `PREFIX` before its name."""


@dataclass(slots=True, eq=False)
class Seen:
    """What is remembered of a request beside vLLM's own state.

    Attributes:
        request: vLLM's; anything with its attributes will do.
        number: in order of arrival, from 0.
        arrival_s: seconds on the policy's clock.
        slo_ttft_s: limit of its time to first token; 0: none.
        slo_tpot_s: limit of its time per output token; 0: none.
        slo_class: class of its limits.
        first_prediction: predicted output tokens that came with it; 0: none.
        prediction: what the policy counts on.
        index: the nonlinear part of its keys: vLLM's priority, or what a controller makes of it.
        key: its place in the queue is `key + slope * x`.
        slope: 0 but for keys that move.
        known_at_admission: known tokens when it joined last; -1 while it waits.
        granted_in: the last call in which it got tokens, or joined.
        group: of a controller's length estimates.
        first_token_s: when its first token came; NaN before.
        lost: tokens that it had computed when it was preempted last.
        num_to_come: output tokens of the iteration under way that vLLM has stopped counting, as it preempted it.
    """

    request: Any
    number: int
    arrival_s: float
    slo_ttft_s: float = 0.0
    slo_tpot_s: float = 0.0
    slo_class: int = 0
    first_prediction: float = 0.0
    prediction: float = 0.0
    index: float = 0.0
    key: float = 0.0
    slope: float = 0.0
    known_at_admission: int = -1
    granted_in: int = -1
    group: int = 0
    first_token_s: float = math.nan
    lost: int = 0
    num_to_come: int = 0

    @property
    def prompt(self) -> int:
        """Prompt tokens."""
        return self.request.num_prompt_tokens  # type: ignore[no-any-return]

    @property
    def generated(self) -> int:
        """Output tokens so far, those under way included."""
        request = self.request
        return request.num_output_tokens + request.num_output_placeholders + self.num_to_come  # type: ignore[no-any-return]

    @property
    def known(self) -> int:
        """Prompt and output tokens."""
        request = self.request
        return request.num_tokens + request.num_output_placeholders + self.num_to_come  # type: ignore[no-any-return]

    @property
    def computed(self) -> int:
        """KV tokens resident."""
        return self.request.num_computed_tokens  # type: ignore[no-any-return]

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.known_at_admission < 0

    @property
    def in_prefill(self) -> bool:
        """Whether no pass since its admission has completed its known tokens."""
        return self.known_at_admission < 0 or self.known == self.known_at_admission


def seen(request: Any, number: int, origin_s: float) -> Seen:
    """What is remembered of a request that has just arrived.

    Args:
        request: vLLM's.
        number: how many arrived before it.
        origin_s: where the policy's clock begins, on vLLM's.
    """
    hints = _hints(request)
    predicted = hints["predicted_output_tokens"]
    return Seen(
        request,
        number,
        request.arrival_time - origin_s,
        slo_ttft_s=hints["ttft_slo_s"],
        slo_tpot_s=hints["tpot_slo_s"],
        slo_class=int(hints["slo_class"]),
        first_prediction=predicted,
        prediction=predicted,
        index=float(request.priority),
    )


def _hints(request: Any) -> dict[str, float]:
    """What the client said, 0 for what it did not say; a hint that is no positive number counts as not said."""
    extra = getattr(getattr(request, "sampling_params", None), "extra_args", None)
    given: Mapping[str, Any] = extra if isinstance(extra, Mapping) else {}
    return {name: _positive(given.get(PREFIX + name)) for name in HINTS}


def _positive(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0.0 else 0.0
