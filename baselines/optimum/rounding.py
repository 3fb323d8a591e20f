"""How far floating-point clocks may be off: the margins of bounds grow with the clock.

The engine adds the duration of every iteration to its clock. Each addition is off by half a unit in the last place of
the clock: nothing at a second, nanoseconds after a month. So iterations may look a little shorter than the cost model
says, and a bound that is to hold for the engine's own figures has to allow for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost.features import ONE

RELATIVE = 1e-9
"""Bounds are lowered by this factor against the rounding of their own sums."""


def clock_unit_s(latest_s: float) -> float:
    """One unit in the last place of a clock at `latest_s`, seconds; each addition is off by half of it."""
    return float(np.spacing(max(latest_s, 0.0)))


def clock_error_s(latest_s: float, num_iterations: float) -> float:
    """How far the engine's clock and ours may be apart after so many iterations, seconds."""
    return num_iterations * clock_unit_s(latest_s)


def as_clocked(form: NDArray[np.float64], latest_s: float) -> NDArray[np.float64]:
    """A linear form below what iterations take by the engine's clock.

    By the clock an iteration of d seconds takes at least d - unit / 2. Where d is at least some seconds `least`, that
    is d (1 - unit / 2 / least) or more.

    Args:
        form: (9,) coefficients in seconds, none negative, that no iteration's duration is below.
        latest_s: no clock that matters is later.
    """
    positive = form[form > 0.0]
    if positive.size == 0:
        return form
    least_s = float(form[ONE]) if form[ONE] > 0.0 else float(positive.min())
    return form * max(1.0 - clock_unit_s(latest_s) / least_s, 0.0)
