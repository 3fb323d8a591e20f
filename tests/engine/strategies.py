"""Random workloads, engines and policies, small and hostile, for property tests.

INFERMAX_EXAMPLES=20 tries 20 times as many, and new ones each time.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from infermax_gym.cost import COSTS, CostModel, only_with_prefills
from infermax_gym.cost.features import FEATURE_NAMES, NUM_TOKENS
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.policy import (
    NO_LIMIT,
    QUEUE_FEATURES,
    VICTIM_FEATURES,
    AdmissionCheck,
    LengthEstimate,
    OnMisfit,
    PhaseOrder,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    VictimPool,
)
from infermax_gym.workload.workload import Workload

_FACTOR = float(os.environ.get("INFERMAX_EXAMPLES", "0.4"))


def examples(count: int) -> settings:
    """How many examples a property test tries; without INFERMAX_EXAMPLES, a factor, 0.4 of them, always the same."""
    return settings(
        max_examples=max(1, int(count * _FACTOR)),
        derandomize="INFERMAX_EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# A roofline-like model with two terms of several forms, so that nothing relies on linearity.
_FORMS = (
    tuple(1e-3 * x for x in (1.0, 0.2, 0.5, 0.001, 0.1, 0.01, 0.3, 0.01, 0.05)),
    tuple(1e-3 * x for x in (3.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.0, 0.02, 0.0)),
)
ROOFLINE = CostModel("two-terms", ((_FORMS[0], _FORMS[1]), (_FORMS[1],)))


def form_ms(**coefficients: float) -> tuple[float, ...]:
    """A linear form from its coefficients in milliseconds, by feature."""
    assert set(coefficients) <= set(FEATURE_NAMES)
    return tuple(1e-3 * coefficients.get(name, 0.0) for name in FEATURE_NAMES)


# Tokens wake experts until all are awake, and from eight tokens on each costs less than before: nothing is convex.
CONCAVE = CostModel(
    "concave",
    ((_FORMS[0],), only_with_prefills(form_ms(num_decodes=0.3, decode_context=0.01), limit_s=1.0)),
    min_terms=(
        (form_ms(num_tokens=2.0), form_ms(one=6.0, num_tokens=0.1), form_ms(one=9.0)),
        (form_ms(), form_ms(one=1.2, num_tokens=-0.15)),
    ),
)

_SIZES = (4.0, 1.0, 4.0, 0.02, 1.0, 0.05, 4.0, 0.05, 1.0)  # milliseconds per feature at the most


@st.composite
def _terms(draw: Any, most_terms: int) -> tuple[tuple[tuple[float, ...], ...], ...]:
    form = st.tuples(*(st.sampled_from([0.0, 0.0, 0.25e-3 * size, 1e-3 * size]) for size in _SIZES))
    return tuple(map(tuple, draw(st.lists(st.lists(form, min_size=1, max_size=3), max_size=most_terms))))


@st.composite
def cost_models(draw: Any) -> CostModel:
    """Presets, the models above, and random ones of maxima and minima, some of them with falling forms."""
    named = draw(st.sampled_from([None, None, *COSTS.values(), ROOFLINE, CONCAVE]))
    if named is not None:
        return named
    bend_at = draw(st.sampled_from([None, 1.0, 5.0, 30.0]))
    falling = 0.9 * _FORMS[0][NUM_TOKENS]
    bend = () if bend_at is None else ((form_ms(), form_ms(one=1e3 * falling * bend_at, num_tokens=-1e3 * falling)),)
    mixed = only_with_prefills(form_ms(decode_context=0.05, num_tokens=-0.3), limit_s=1.0)
    return CostModel(
        "random",
        ((_FORMS[0],), *draw(_terms(2)), *draw(st.sampled_from([(), (mixed,)]))),
        floor_context=draw(st.booleans()),
        min_terms=(*draw(_terms(2)), *bend),
    )


WEIGHTS = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 0.5, 3.0])


@st.composite
def workloads(draw: Any, max_requests: int = 12, max_prompt: int = 40, max_output: int = 25) -> Workload:
    """Few requests, many simultaneous arrivals, sizes from one token up."""
    n = draw(st.integers(1, max_requests))
    sizes = lambda top: st.lists(st.integers(1, top), min_size=n, max_size=n)  # noqa: E731
    gaps = draw(st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.5]), min_size=n, max_size=n))
    return Workload(
        np.cumsum(gaps),
        draw(sizes(draw(st.sampled_from([3, max_prompt])))),
        draw(sizes(draw(st.sampled_from([3, max_output])))),
        priority=draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)),
        ttft_slo_s=draw(st.lists(st.sampled_from([0.1, 1.0, np.inf]), min_size=n, max_size=n)),
        tpot_slo_s=draw(st.lists(st.sampled_from([0.01, 0.2, np.inf]), min_size=n, max_size=n)),
        tenant=draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)),
        tenant_names=("a", "b", "c"),
    )


@st.composite
def with_prefixes(draw: Any, most_requests: int = 12) -> Workload:
    """Requests that share beginnings of all lengths, with prompts, and sometimes outputs, hashed whole or in part."""
    workload = draw(workloads(most_requests))
    size = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    one_family = draw(st.booleans())
    counts, hashes = [], []
    for prompt, output in zip(workload.num_prompt_tokens, workload.num_output_tokens, strict=True):
        whole = -(-int(prompt) // size)
        count = draw(st.sampled_from([whole, whole, whole, whole // 2, 0, int(prompt + output) // size]))
        first_odd = draw(st.integers(0, count))  # up to there like everybody's
        odd = draw(st.integers(1, 2))
        counts.append(count)
        hashes += [0 if one_family and i < first_odd else odd for i in range(count)]
    return replace(
        workload, prefix_blocks=hashes, prefix_start=np.cumsum([0, *counts]), prefix_block_size=size, name="prefixed"
    )


@st.composite
def configs(draw: Any) -> EngineConfig:
    """Tiny caches, budgets and sequences."""
    block = draw(st.sampled_from([1, 2, 4, 16]))
    return EngineConfig(
        cost=draw(cost_models()),
        num_kv_tokens=draw(st.integers(block, 120)),
        block_size=block,
        max_num_batched_tokens=draw(st.sampled_from([1, 2, 7, 16, 64])),
        max_num_seqs=draw(st.sampled_from([1, 2, 3, 8, 64])),
        max_model_len=draw(st.sampled_from([None, None, 30, 70])),
        max_output_tokens=draw(st.sampled_from([None, 4, 30])),
        num_host_kv_tokens=draw(st.sampled_from([0, 10, 40, 1000])),
        swap_tokens_per_s=1000.0,
    )


@st.composite
def policies(draw: Any) -> Policy:
    """Any combination of knobs that is a valid policy."""
    queue_order = draw(st.sampled_from(list(QueueOrder)))
    run_orders = [o for o in RunOrder if queue_order == QueueOrder.LINEAR or o != RunOrder.QUEUE_KEY]
    waiting_requests = queue_order == QueueOrder.LINEAR and draw(st.booleans())
    checks = [c for c in AdmissionCheck if not (waiting_requests and c == AdmissionCheck.FUTURE_PEAK)]
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    holds = draw(st.sampled_from([False, False, True]))
    levels = queue_order == QueueOrder.LINEAR and draw(st.booleans())
    quantum_s = pick(0.0, 0.004, 0.05) if levels else 0.0
    preempt_mode = pick(*PreemptMode)
    overlap_swaps = draw(st.booleans())
    return Policy(
        "random",
        phase_order=PhaseOrder.DECODE_FIRST if holds else pick(*PhaseOrder),
        hybrid=holds or draw(st.booleans()),
        queue_order=queue_order,
        load_aging=pick(0.1, 3.0),
        queue_weights=tuple(draw(WEIGHTS) for _ in QUEUE_FEATURES),
        run_order=pick(*run_orders),
        chunking=pick(True, True, False),
        max_chunk=pick(NO_LIMIT, NO_LIMIT, 1, 5),
        uncapped_when_alone=draw(st.booleans()),
        min_chunk=pick(0, 0, 3, 10),
        max_prefills=pick(NO_LIMIT, NO_LIMIT, 1, 2),
        prefill_interval=pick(0, 0, 2, 4),
        prefill_share=pick(1.0, 1.0, 0.5, 0.01),
        prefill_share_from=pick(0, 0, 2, 3),
        max_num_batched_tokens=pick(None, None, 3, 20),
        reserve=pick(*Reserve),
        admission_check=pick(*checks),
        estimate=pick(*(e for e in LengthEstimate if e != LengthEstimate.NONE)),
        watermark=pick(0.0, 0.0, 0.01, 0.2),
        headroom_tokens=pick(0.0, 0.0, 3.0, 20.0),
        peak_margin=pick(0.0, 0.3),
        max_running=pick(None, None, 1, 3),
        on_misfit=pick(*OnMisfit),
        max_skips=pick(16, 1, 0),
        victim=pick(*Victim),
        victim_weights=tuple(draw(WEIGHTS) for _ in VICTIM_FEATURES),
        victim_pool=pick(*VictimPool),
        self_preemption_ends=draw(st.booleans()),
        admit_after_preemption=draw(st.booleans()),
        preempt_for_waiting=waiting_requests,
        preempt_mode=preempt_mode,
        admit_when_empty_only=pick(False, False, True),
        release_at_batch_end=pick(False, False, True),
        delay_factor=pick(0.0, 0.0, 0.5),
        min_decodes_between_prefills=pick(0, 0, 3),
        history_quantile=pick(0.5, 0.9, 1.0),
        max_iteration_s=pick(0.0, 0.0, 0.006, 0.02),
        evict_share=pick(0.0, 0.5, 1.0) if preempt_mode == PreemptMode.RECOMPUTE else 0.0,
        pin_after=pick(float(NO_LIMIT), float(NO_LIMIT), 0.0, 0.5),
        min_waiting=pick(0, 0, 2, 5),
        overlap_swaps=overlap_swaps,
        swap_lag_tokens=pick(0, 3, 30) if overlap_swaps else 0,
        hold_iterations=pick(1.0, 5.0) if holds else 0.0,
        hold_tpot_s=pick(0.02, 0.1),
        quantum_s=quantum_s,
        quantum_iterations=pick(0, 0, 1, 4) if levels else 0,
        quantum_growth=pick(1.0, 2.0),
        mlfq_levels=pick(1, 3, 16),
        skip_join=quantum_s > 0.0 and draw(st.booleans()),
        starvation_s=pick(0.0, 0.01, 0.3) if levels else 0.0,
        starvation_iterations=pick(0, 0, 3, 20) if levels else 0,
        starvation_every=pick(1, 1, 5),
        prompt_charge=pick(0.0, 1.0),
        output_charge=pick(0.5, 2.0),
        tenant_weights=pick((), (1.0, 4.0)),
        refresh_tokens=pick(0, 0, 1, 4),
    )


@st.composite
def predictions(draw: Any, workload: Workload) -> np.ndarray:
    """Exact, constant or wild predicted output lengths."""
    n = len(workload)
    kind = draw(st.sampled_from(["exact", "constant", "wild"]))
    if kind == "exact":
        return workload.num_output_tokens.astype(float)
    if kind == "constant":
        return np.full(n, 5.5)
    return np.array(draw(st.lists(st.floats(1.0, 60.0), min_size=n, max_size=n)))
