"""Linear lower bounds on a cost model, with no negative coefficient.

A cost model is a sum of maxima and minima of linear forms. Below a maximum lies any convex combination of its forms,
below a minimum the least of every coefficient and a chord (`_below_minimum`). So a bound proven for one linear form
holds for the model. A linear model is its own minorant: nothing is lost.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost import CostModel
from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    HAS_DECODE,
    HAS_PREFILL,
    NUM_DECODES,
    NUM_FEATURES,
    NUM_PREFILLS,
    NUM_TOKENS,
    ONE,
    PREFILL_CONTEXT,
    PREFILL_WORK,
)

_MAX_MINORANTS = 9


def is_lean(cost: CostModel) -> bool:
    """Whether the cost is exactly linear in the features, without negative coefficients."""
    return is_linear_in_prefills(cost) and not cost.floor_context


def is_linear_in_prefills(cost: CostModel) -> bool:
    """Whether the cost is one linear form per term without negative coefficients, decode contexts maybe rounded."""
    return cost.is_convex and all(len(term) == 1 for term in cost.terms) and bool((cost.theta >= 0.0).all())


def minorants(cost: CostModel, max_tokens: int, capacity_tokens: int) -> NDArray[np.float64]:
    """Linear forms that no batch's duration is below.

    Args:
        cost: the model.
        max_tokens: most tokens of one batch.
        capacity_tokens: KV capacity, which bounds every context.

    Returns:
        (k, 9) coefficients in seconds, all >= 0, 1 <= k <= 9.
    """
    mixes = [_mixes(len(term)) for term in cost.terms]
    forms = [np.array(term) for term in cost.terms]
    most = min(max_tokens, capacity_tokens)
    below = np.sum([np.zeros(NUM_FEATURES), *(_below_minimum(np.array(term), most) for term in cost.min_terms)], axis=0)
    if np.prod([len(mix) for mix in mixes], dtype=float) > _MAX_MINORANTS:
        shared = [np.linspace(0, len(term) - 1, _MAX_MINORANTS).round().astype(int) for term in cost.terms]
        combos = [[np.eye(len(f))[s[j]] for f, s in zip(forms, shared, strict=True)] for j in range(_MAX_MINORANTS)]
    else:
        combos = [list(combo) for combo in itertools.product(*mixes)]
    found = []
    for combo in combos:
        total = np.sum([w @ f for w, f in zip(combo, forms, strict=True)], axis=0) + below
        found.append(_non_negative(total, most, capacity_tokens))
    return np.unique(np.array(found), axis=0)


def _below_minimum(forms: NDArray[np.float64], max_tokens: int) -> NDArray[np.float64]:
    """(9,) a linear form below the minimum of some, (k, 9), in batches of 1 to `max_tokens` tokens.

    What the forms have beyond the least of each coefficient is not negative. Its part in 1 and T has a minimum that
    is concave in T, so the chord from 1 to `max_tokens` lies below; it is the best there is where the forms differ in
    nothing else.
    """
    least = forms.min(axis=0)
    beyond = forms - least
    first, last = (float((beyond[:, ONE] + beyond[:, NUM_TOKENS] * t).min()) for t in (1, max_tokens))
    slope = (last - first) / max(max_tokens - 1, 1)
    least[ONE] += first - slope
    least[NUM_TOKENS] += slope
    return np.asarray(least)


def _mixes(num_forms: int) -> list[NDArray[np.float64]]:
    if num_forms == 1:
        return [np.ones(1)]
    if num_forms == 2:
        return [np.array([1.0 - w, w]) for w in np.linspace(0.0, 1.0, _MAX_MINORANTS)]
    return [*np.eye(num_forms), np.full(num_forms, 1.0 / num_forms)]


def _non_negative(form: NDArray[np.float64], max_tokens: int, capacity: int) -> NDArray[np.float64]:
    """A form below `form` on every non-empty batch, without negative coefficients.

    Each negative coefficient moves to a feature that is an upper bound of its own.
    """
    v = form.copy()
    moves = (
        (PREFILL_CONTEXT, ONE, float(capacity)),
        (DECODE_CONTEXT, ONE, float(capacity)),
        (PREFILL_WORK, ONE, float(capacity) ** 2),
        (NUM_PREFILLS, NUM_TOKENS, 1.0),
        (NUM_DECODES, NUM_TOKENS, 1.0),
        (HAS_PREFILL, ONE, 1.0),
        (HAS_DECODE, ONE, 1.0),
        (NUM_TOKENS, ONE, float(max_tokens)),
        (ONE, NUM_TOKENS, 1.0),
    )
    for source, target, factor in moves:
        if v[source] < 0.0:
            v[target] += v[source] * factor
            v[source] = 0.0
    return v if (v >= 0.0).all() else np.zeros_like(v)
