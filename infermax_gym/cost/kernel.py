"""Compiled evaluation of a cost model: batch features in, seconds out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import inlined


@inlined
def batch_seconds(
    theta: NDArray[np.float64],
    term_end: NDArray[np.int64],
    floor_context: bool,
    num_tokens: int,
    prefill_work: int,
    num_prefills: int,
    prefill_context: int,
    decode_context: int,
    num_decodes: int,
) -> Any:
    """Duration of one iteration in seconds: the sum over terms of the largest, or smallest, of their linear forms.

    Args:
        theta: (num_forms, 9) coefficients in seconds per feature, the forms of a term adjacent.
        term_end: (num_terms,) index one past the last form of each term; negated if the term is a minimum.
        floor_context: count each decode's context one token higher and floor the batch mean, as INFERMAX's
            simulator does; exact context otherwise.
        num_tokens: tokens of the batch, prefills and decodes together.
        prefill_work: sum over prefills of c^2 + 2 c m.
        num_prefills: number of prefill requests.
        prefill_context: sum over prefills of m.
        decode_context: sum over decodes of m.
        num_decodes: number of decode requests.
    """
    context = decode_context
    if floor_context and num_decodes > 0:
        context = num_decodes * ((decode_context + num_decodes) // num_decodes)
    has_prefill = 1.0 if num_prefills > 0 else 0.0
    has_decode = 1.0 if num_decodes > 0 else 0.0
    total = 0.0
    form = 0
    for term in range(term_end.size):
        sign = 1.0 if term_end[term] > 0 else -1.0  # a minimum is minus the largest of the negated forms
        end = abs(term_end[term])
        largest = -np.inf
        while form < end:
            other = theta[form, 1] * num_tokens + theta[form, 0]
            prefill = (
                theta[form, 3] * prefill_work
                + theta[form, 2] * has_prefill
                + theta[form, 4] * num_prefills
                + theta[form, 5] * prefill_context
            )
            decode = theta[form, 7] * context + theta[form, 6] * has_decode + theta[form, 8] * num_decodes
            seconds = sign * (decode + prefill + other)
            if seconds > largest:
                largest = seconds
            form += 1
        total += sign * largest
    return total
