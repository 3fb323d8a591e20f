"""Random closed-loop traffic, small and hostile: clients, conversations, both, and anything that is allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from infermax_gym.workload import Workload, as_sessions, closed_loop

PAUSES = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.5])


@st.composite
def closed_loops(draw: Any, workloads: st.SearchStrategy[Workload]) -> Workload:
    """Clients who share the requests, turns of conversations, conversations with clients, or any predecessors."""
    workload = draw(workloads)
    n = len(workload)
    kind = draw(st.sampled_from(["clients", "conversations", "both", "anything"]))
    if kind == "anything":
        after = [-1, *(draw(st.integers(-1, k - 1)) for k in range(1, n))]
        return replace(workload, after=after, think_s=draw(st.lists(PAUSES, min_size=n, max_size=n)))
    if kind != "clients":
        sessions = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
        workload = replace(workload, session=np.array(sessions))
        workload = as_sessions(workload, draw(st.one_of(st.none(), PAUSES)), draw(st.sampled_from([0.0, 0.01])))
    if kind != "conversations":
        workload = closed_loop(workload, draw(st.integers(1, 5)), draw(PAUSES), draw(PAUSES))
    if draw(st.booleans()):
        workload = replace(workload, think_s=draw(st.lists(PAUSES, min_size=n, max_size=n)))
    return workload
