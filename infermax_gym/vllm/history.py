"""What finished requests teach: their lengths by prompt size, and a quantile of output lengths."""

from __future__ import annotations

import math

NUM_BUCKETS = 64
NUM_OUTPUT_BINS = 1024


class History:
    """Finished requests, as the engine's kernel keeps them.

    Args:
        max_output_tokens: upper bound on output lengths, which sets the width of a bin.
        quantile: of `output_estimate`, in (0, 1].
    """

    def __init__(self, max_output_tokens: int, quantile: float) -> None:
        self._bin = -(-max_output_tokens // NUM_OUTPUT_BINS)
        self._quantile = quantile
        self._totals = [[0, 0] for _ in range(NUM_BUCKETS)]
        self._outputs = [0] * NUM_OUTPUT_BINS
        self._quantiles: list[int] | None = None

    def learn(self, num_prompt_tokens: int, num_output_tokens: int) -> None:
        """Count a finished request."""
        totals = self._totals[num_prompt_tokens.bit_length() - 1]
        totals[0] += 1
        totals[1] += num_prompt_tokens + num_output_tokens
        self._outputs[min((num_output_tokens - 1) // self._bin, NUM_OUTPUT_BINS - 1)] += 1
        self._quantiles = None

    def mean_total(self, num_prompt_tokens: int) -> int:
        """Mean prompt + output of finished requests in the same power-of-two prompt bucket, rounded up; 0: none."""
        count, total = self._totals[num_prompt_tokens.bit_length() - 1]
        return math.ceil(total / count) if count > 0 else 0

    def output_estimate(self, generated: int) -> int:
        """The quantile of finished outputs in the bin of the next token and beyond, 0 if there are none."""
        if self._quantiles is None:
            self._quantiles = self._sweep()
        return self._quantiles[min(generated // self._bin, NUM_OUTPUT_BINS - 1)]

    def _sweep(self) -> list[int]:
        """For every bin, the quantile of the lengths in it and beyond; it rises with the bin."""
        outputs = self._outputs
        quantiles = [0] * NUM_OUTPUT_BINS
        beyond = sum(outputs)
        last = 0
        within = outputs[0]
        for i in range(NUM_OUTPUT_BINS):
            if beyond == 0:
                break
            while within < self._quantile * beyond:
                last += 1
                within += outputs[last]
            quantiles[i] = (last + 1) * self._bin
            beyond -= outputs[i]
            within -= outputs[i]
            if last == i and i + 1 < NUM_OUTPUT_BINS:
                last += 1
                within += outputs[last]
        return quantiles
