"""What a migration under way remembers, as plain memory."""

from __future__ import annotations

import numpy as np

MOVE = np.dtype(
    [
        ("state", "i8"),  # 0 nothing, 1 copying while the request decodes on, 2 flying after it has stopped
        ("slot", "i8"),  # the request, in the engine that gives it away
        ("preemptions", "i8"),  # it had when copying began
        ("tokens", "i8"),  # copied while it decodes on
        ("blocks", "i8"),  # set aside where it goes
        ("at_s", "f8"),  # when the copy is complete, or the request lands
        ("left_s", "f8"),  # when it stopped
        # while replicas are paired
        ("load", "f8"),
        ("paired", "i8"),
    ],
    align=True,
)
"""Of the request that a replica gives away."""
