"""The table of schedulers: each policy is one setting of the engine's scheduling algorithm.

The policies stand in `baselines/table/`, grouped by what they descend from; `POLICIES` maps every name to its policy. A
policy names its source and says in a line what it is good and bad at; where it deviates from the source, the line or a
comment above it says so. Token budget, sequences and block size come from the engine unless a policy states its own.
"""

from __future__ import annotations

from infermax_gym.baselines.table import adaptive, engines, infermax, objectives, sizes
from infermax_gym.engine.policy import Policy

POLICIES: dict[str, Policy] = {
    row.name: row for theme in (infermax, engines, sizes, adaptive, objectives) for row in theme.TABLE
}
"""Every policy by name."""
