"""Seconds per batch."""

from __future__ import annotations

from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.cost.model import CostModel
from tests.reference.request import Request


class Duration:
    """Seconds per batch, from exact sums; the formula is the cost model's own."""

    def __init__(self, cost: CostModel) -> None:
        self.theta, self.term_end, self.floor_context = cost.theta, cost.term_end, cost.floor_context

    def of(self, batch: dict[Request, int], prefill: tuple[int, int] | None = None) -> float:
        """Of a batch, with one more prefill of so many tokens after so many resident ones if there is one."""
        prefills = [(tokens, r.resident) for r, tokens in batch.items() if not r.is_decode]
        decodes = [r.resident for r in batch if r.is_decode]
        if prefill is not None:
            prefills.append(prefill)
        return self._seconds(prefills, decodes)

    def of_prefill(self, num_tokens: int) -> float:
        """Of one prefill from the first token on."""
        return self._seconds([(num_tokens, 0)], [])

    def _seconds(self, prefills: list[tuple[int, int]], decodes: list[int]) -> float:
        seconds = batch_seconds.py_func(
            self.theta,
            self.term_end,
            self.floor_context,
            sum(c for c, _ in prefills) + len(decodes),
            sum(c * c + 2 * c * m for c, m in prefills),
            len(prefills),
            sum(m for _, m in prefills),
            sum(decodes),
            len(decodes),
        )
        return float(seconds)
