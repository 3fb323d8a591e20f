"""The policies: every prefix-aware scheduler by name."""

from __future__ import annotations

import math
from functools import partial

from infermax_gym.baselines.prefix_aware.orders import (
    AgedShortest,
    Deficit,
    Fcfs,
    KLpm,
    ResidualShortest,
    ShortestExtend,
)
from infermax_gym.baselines.prefix_aware.sglang import Sglang

SGLANG_FCFS = Sglang(
    "sglang-fcfs",
    Fcfs,
    note="Prefills first, few retractions; blind to what is cached.",
    source="SGLang (2312.07104), srt/managers/schedule_policy.py, fcfs",
)
SGLANG_LPM = Sglang(
    "sglang-lpm",
    partial(KLpm, math.inf),
    note="Most reuse of shared prefixes; who shares none waits for a lull. FCFS above 128 waiting.",
    source="SGLang (2312.07104), srt/managers/schedule_policy.py, lpm",
)
SGLANG_LPM_IN_BATCH = Sglang(
    "sglang-lpm-in-batch",
    partial(KLpm, math.inf),
    note="LPM in which only the first with a new beginning goes now: its followers wait and find it cached.",
    source="SGLang (2312.07104), srt/managers/schedule_policy.py, lpm with in-batch prefix caching (32 tokens)",
    stand_back=True,
)
SGLANG_SHORTEST = Sglang(
    "sglang-shortest-uncached",
    ShortestExtend,
    note="Fewest tokens to compute first: short or cached; long prompts with nothing cached wait for a lull.",
    source="SGLang (2312.07104), schedule_policy.py of some versions: shortest uncached prefill first",
)
SGLANG_SJF = Sglang(
    "sglang-sjf",
    partial(AgedShortest, 1_000.0),
    note="Shortest uncached first, but a second of waiting is worth 1,000 tokens: long prompts get their turn.",
    source="SGLang PR 30806, schedule-policy sjf: uncached - aging x wait; 1,000 tokens/s is ours",
)
RESIDUAL_SJF = Sglang(
    "residual-sjf",
    partial(ResidualShortest, 10.0),
    note="Fewest uncached blocks first, then by arrival; FCFS for whoever waited 10 s.",
    source="the order of vLLM PR 51375, residual_sjf_max_wait_ms 10,000; admission, chunks and retraction are SGLang's",
)
DLPM = Sglang(
    "dlpm",
    partial(Deficit, 4_096.0),
    note="Longest match among tenants with credit: no tenant is shut out, some reuse is lost.",
    source="DLPM (2501.14312), weights 1 and 2; quantum 4,096 is ours, and a tenant's first request brings its first",
)


def k_lpm(k: int) -> Sglang:
    """k-LPM: every k-th waiting request is the one that came first."""
    return Sglang(
        f"k-lpm-{k}",
        partial(KLpm, k),
        note=f"Longest match, but every {k}th request admitted is the oldest: waits are bounded, little reuse is lost.",
        source=f"k-LPM (2502.04677), k = {k}; a round ends with the oldest, matches are those at its decision",
    )


_TABLE = (
    SGLANG_FCFS,
    SGLANG_LPM,
    SGLANG_LPM_IN_BATCH,
    SGLANG_SHORTEST,
    SGLANG_SJF,
    RESIDUAL_SJF,
    k_lpm(2),
    k_lpm(8),
    DLPM,
)

PREFIX_AWARE: dict[str, Sglang] = {row.name: row for row in _TABLE}
"""Every policy by name."""
