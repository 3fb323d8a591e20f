"""What a batch would cost, without a compiler: `infermax_gym.cost.kernel` in plain Python, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel


def batch_seconds(
    cost: CostModel,
    num_tokens: int,
    prefill_work: int = 0,
    num_prefills: int = 0,
    prefill_context: int = 0,
    decode_context: int = 0,
    num_decodes: int = 0,
) -> float:
    """Duration of one iteration in seconds; arguments as in `infermax_gym.cost.kernel.batch_seconds`."""
    context = decode_context
    if cost.floor_context and num_decodes > 0:
        context = num_decodes * ((decode_context + num_decodes) // num_decodes)
    has_prefill = 1.0 if num_prefills > 0 else 0.0
    has_decode = 1.0 if num_decodes > 0 else 0.0

    def seconds(form: tuple[float, ...]) -> float:
        other = form[1] * num_tokens + form[0]
        prefill = form[3] * prefill_work + form[2] * has_prefill + form[4] * num_prefills + form[5] * prefill_context
        decode = form[7] * context + form[6] * has_decode + form[8] * num_decodes
        return decode + prefill + other

    total = 0.0
    for term in cost.terms:
        total += max(seconds(form) for form in term)
    for term in cost.min_terms:
        total += min(seconds(form) for form in term)
    return total


def prefill_seconds(cost: CostModel, num_tokens: int) -> float:
    """Duration of an iteration that is the prefill of `num_tokens` tokens and nothing else."""
    return batch_seconds(cost, num_tokens, num_tokens * num_tokens, 1)
