"""What finished requests teach about output lengths."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.memory import outputs_of, quantiles_of


@compiled
def learn_output(s: Any, num_tokens: int) -> None:
    """Count the output length of a finished request."""
    outputs = outputs_of(s)
    outputs[min((num_tokens - 1) // s.output_bin, outputs.size - 1)] += 1
    s.quantiles_stale = 1


@compiled
def _take_quantiles(s: Any) -> None:
    """For every bin, the quantile of the lengths in it and beyond; it rises with the bin, so one sweep is enough."""
    outputs = outputs_of(s)
    quantiles = quantiles_of(s)
    beyond = outputs.sum()
    last = 0
    within = outputs[0]  # lengths from the bin to `last`
    for i in range(outputs.size):
        quantiles[i] = 0
        if beyond == 0:
            continue
        while within < s.history_quantile * beyond:
            last += 1
            within += outputs[last]
        quantiles[i] = (last + 1) * s.output_bin
        beyond -= outputs[i]
        within -= outputs[i]
        if last == i and i + 1 < outputs.size:
            last += 1
            within += outputs[last]
    s.quantiles_stale = 0


@compiled
def history_estimate(s: Any, generated: int) -> Any:
    """The quantile of finished outputs in the bin of the next token and beyond, 0 if there are none."""
    quantiles = quantiles_of(s)
    if s.quantiles_stale:
        _take_quantiles(s)
    return quantiles[min(generated // s.output_bin, quantiles.size - 1)]
