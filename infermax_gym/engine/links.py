"""The memory of closed-loop traffic before the first request, for `infermax_gym.engine.kernel.closed_loop`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.layout import LINK, LOOP, REQUEST
from infermax_gym.workload.workload import ANYBODY, NOBODY, Workload


def no_loop() -> dict[str, NDArray[Any]]:
    """LOOP_ARRAYS of an engine with open traffic."""
    return {"loop": np.zeros(0, LOOP), "links": np.zeros(0, LINK), "unsent": np.zeros(0, REQUEST)}


def fresh_loop(workload: Workload, unsent: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """LOOP_ARRAYS of a workload, nothing of it sent yet.

    Args:
        workload: n requests.
        unsent: (n,) REQUEST as they will come.
    """
    n = len(workload)
    loop, links = np.zeros(1, LOOP), np.zeros(n, LINK)
    links["successor"] = links["sibling"] = links["slot"] = -1
    links["think_s"] = workload.think_s
    links["due_s"] = workload.arrival_s
    beginnings, shared = (np.flatnonzero(workload.after == mark) for mark in (NOBODY, ANYBODY))
    links["beginning"][: len(beginnings)], links["shared"][: len(shared)] = beginnings, shared
    loop["num_beginnings"], loop["num_shared"] = len(beginnings), len(shared)
    for r in np.flatnonzero(workload.after >= 0)[::-1].tolist():  # so that siblings are in order
        before = int(workload.after[r])
        links["sibling"][r] = links["successor"][before]
        links["successor"][before] = r
    return {"loop": loop, "links": links, "unsent": unsent}
