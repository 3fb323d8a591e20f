"""The table of schedulers: each policy is one setting of the engine's scheduling algorithm.

The policies stand in `baselines/table/`, grouped by what they descend from; `POLICIES` maps every name to its policy. A
policy names its source and says in a line what it is good and bad at; where it deviates from the source, the line or a
comment above it says so. Token budget, sequences and block size come from the engine unless a policy states its own.
"""

from __future__ import annotations

from infermax_gym.baselines.named import Named
from infermax_gym.baselines.table import adaptive, engines, infermax, objectives, sizes, vllm
from infermax_gym.engine.policy import Policy

POLICIES: Named[Policy] = Named(
    {policy.name: policy for theme in (infermax, vllm, engines, sizes, adaptive, objectives) for policy in theme.TABLE},
    vllm.ALIASES,
)
"""Every policy by name; by its other names too, which listings leave out."""
