"""Terms that are worth a name, for tables and fits to write them one way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infermax_gym.cost.features import HAS_PREFILL, NUM_FEATURES, ONE
from infermax_gym.cost.model import CostModelError, Form


def only_with_prefills(form: Sequence[float], limit_s: float) -> tuple[Form, Form]:
    """A term of `CostModel.terms` that is max(0, form) in batches with prefills, and 0 in all others.

    It says that decodes cost more while prefills run beside them: max(0, form + limit_s (1[P>0] - 1)).

    Args:
        form: nine coefficients in seconds per feature, mostly of `num_decodes` and `decode_context`.
        limit_s: seconds, at least what the form comes to in any batch without prefills: that of `max_num_seqs`
            decodes that fill the KV cache. Not far more: the form is rounded to its last place.

    Returns:
        The term, two forms.

    Raises:
        CostModelError: the form has not nine coefficients, or the limit is not positive and finite.

    Example:
        >>> from infermax_gym.cost import CostModel
        >>> linear = (0.01, 1e-4, 0, 0, 0, 0, 0, 1e-7, 0)
        >>> mixed = only_with_prefills((0, 0, 0, 0, 0, 0, 0, 2e-7, 0), limit_s=1.0)
        >>> model = CostModel("mixed", ((linear,), mixed))
        >>> round(model.seconds(decodes=[10_000]), 6), round(model.seconds([(1, 0)], [10_000]), 6)
        (0.0111, 0.0132)
    """
    if len(form) != NUM_FEATURES:
        raise CostModelError(f"only_with_prefills: form needs {NUM_FEATURES} coefficients, got {len(form)}")
    if not (math.isfinite(limit_s) and limit_s > 0.0):
        raise CostModelError(f"only_with_prefills: limit_s must be positive and finite, got {limit_s}")
    shifted = [float(x) for x in form]
    shifted[ONE] -= limit_s
    shifted[HAS_PREFILL] += limit_s
    return (0.0,) * NUM_FEATURES, tuple(shifted)
