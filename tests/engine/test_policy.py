"""What a policy of the table and an engine may be; each mistake has its line."""

from __future__ import annotations

import math
from typing import Any

import pytest

from infermax_gym.engine import EngineConfig, Information, Policy
from infermax_gym.engine.policy import (
    QUEUE_FEATURES,
    VICTIM_FEATURES,
    AdmissionCheck,
    LengthEstimate,
    PhaseOrder,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    queue_weights,
    victim_weights,
)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"queue_weights": (1.0,)}, r"queue_weights needs 16 numbers \(arrival_s, "),
        ({"victim_weights": (1.0,) * 9}, r"victim_weights needs 12 numbers \(arrival_s, "),
        ({"max_chunk": 0}, "max_chunk must be at least 1, got 0"),
        ({"min_chunk": -1}, "min_chunk must not be negative, got -1"),
        ({"max_prefills": 0}, "max_prefills must be at least 1, got 0"),
        ({"prefill_interval": -1}, "prefill_interval must not be negative, got -1"),
        ({"prefill_share_from": -1}, "prefill_share_from must not be negative, got -1"),
        ({"prefill_share": 0.0}, r"prefill_share must be in \(0, 1\], got 0.0"),
        ({"prefill_share": 1.1}, "prefill_share must be in"),
        ({"prefill_share": math.nan}, "prefill_share must be in"),
        ({"watermark": -0.1}, r"watermark must be in \[0, 1\), got -0.1"),
        ({"watermark": 1.0}, "watermark must be in"),
        ({"watermark": math.nan}, "watermark must be in"),
        ({"peak_margin": 1.0}, r"peak_margin must be in \[0, 1\), got 1.0"),
        ({"headroom_tokens": math.nan}, "headroom_tokens must be finite, got nan"),
        ({"delay_factor": math.inf}, "delay_factor must be finite, got inf"),
        ({"load_aging": math.nan}, "load_aging must be finite, got nan"),
        ({"queue_weights": (math.nan,) * 16}, "queue_weights must be finite"),
        ({"victim_weights": (math.inf,) * 12}, "victim_weights must be finite"),
        ({"max_running": 0}, "max_running must be at least 1"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be at least 1"),
        ({"prediction_sigma": -0.1}, "prediction_sigma must not be negative, got -0.1"),
        ({"prediction_sigma": 0.1, "information": Information.ORACLE}, "an ORACLE policy has exact predictions"),
        ({"reserve": Reserve.TOTAL_ESTIMATE}, "TOTAL_ESTIMATE and FUTURE_PEAK need a length estimate"),
        ({"admission_check": AdmissionCheck.FUTURE_PEAK}, "TOTAL_ESTIMATE and FUTURE_PEAK need a length estimate"),
        ({"run_order": RunOrder.QUEUE_KEY}, "run_order QUEUE_KEY needs queue_order LINEAR"),
        ({"preempt_for_waiting": True}, "preempt_for_waiting needs queue_order LINEAR"),
        (
            {
                "preempt_for_waiting": True,
                "queue_order": QueueOrder.LINEAR,
                "admission_check": AdmissionCheck.FUTURE_PEAK,
                "estimate": LengthEstimate.BOUND,
            },
            "preempt_for_waiting does not go with admission_check FUTURE_PEAK",
        ),
        ({"max_skips": -1}, r"max_skips must be in 0..1024, got -1"),
        ({"max_skips": 1025}, "max_skips must be in"),
        ({"starvation_s": 1.0}, "levels .* need queue_order LINEAR"),
        ({"queue_order": QueueOrder.LINEAR, "skip_join": True}, "skip_join needs a quantum_s"),
        ({"quantum_growth": 0.5}, "quantum_growth must be at least 1, got 0.5"),
        ({"mlfq_levels": 0}, r"mlfq_levels must be in 1..64, got 0"),
        ({"hold_iterations": 5.0, "phase_order": PhaseOrder.ONE_LIST}, "hold_iterations needs hybrid"),
        ({"hold_tpot_s": 0.0}, "hold_tpot_s must be positive, got 0.0"),
        ({"evict_share": 0.5, "preempt_mode": PreemptMode.SWAP}, "evict_share needs preempt_mode RECOMPUTE"),
        ({"swap_lag_tokens": 5}, "swap_lag_tokens needs overlap_swaps"),
        ({"swap_lag_tokens": -5, "overlap_swaps": True}, "swap_lag_tokens must not be negative"),
        ({"starvation_every": 0}, "starvation_every must be at least 1"),
        ({"evict_share": 1.5}, r"evict_share must be in \[0, 1\], got 1.5"),
        ({"history_quantile": 0.0}, r"history_quantile must be in \(0, 1\], got 0.0"),
        ({"interval_ratio": 0.0}, r"interval_ratio must be in \(0, 1\], got 0.0"),
        ({"tenant_weights": (1.0, 0.0)}, "tenant_weights must be positive"),
        ({"pin_after": -1.0}, "pin_after must not be negative, got -1.0"),
        ({"max_iteration_s": math.nan}, "max_iteration_s must be finite, got nan"),
        ({"prompt_charge": math.inf}, "prompt_charge must be finite, got inf"),
    ],
)
def test_a_row_that_is_none(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Policy("broken", **knobs)
    assert str(caught.value).startswith("policy 'broken': ")
    assert "\n" not in str(caught.value)


def test_weights_by_name() -> None:
    assert queue_weights(priority=2.0, arrival_s=1) == (1.0, *(0.0,) * 5, 2.0, *(0.0,) * 9)
    assert victim_weights(is_prefill=-1) == (*(0.0,) * 7, -1.0, *(0.0,) * 4)
    assert len(queue_weights()) == len(QUEUE_FEATURES)
    assert len(victim_weights()) == len(VICTIM_FEATURES)
    with pytest.raises(ValueError, match="unknown feature 'size'; known: arrival_s, num_prompt_tokens"):
        queue_weights(size=1.0)
    with pytest.raises(ValueError, match="unknown feature 'slo_ttft_s'"):
        victim_weights(slo_ttft_s=1.0)


def test_sources_and_notes_are_no_part_of_a_policy() -> None:
    assert Policy("a", source="x", note="y") == Policy("a")
    assert hash(Policy("a", source="x")) == hash(Policy("a"))
    assert Policy("a") != Policy("a", hybrid=False)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_kv_tokens": 0}, "num_kv_tokens must be at least 1, got 0"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be at least 1, got 0"),
        ({"max_num_seqs": -1}, "max_num_seqs must be at least 1, got -1"),
        ({"max_model_len": 0}, "max_model_len must be at least 1, got 0"),
        ({"max_output_tokens": 0}, "max_output_tokens must be at least 1, got 0"),
        ({"num_kv_tokens": 15}, r"num_kv_tokens \(15\) must hold at least one block of 16"),
        ({"num_host_kv_tokens": -1}, "num_host_kv_tokens must not be negative, got -1"),
        ({"swap_tokens_per_s": 0.0}, "swap_tokens_per_s must be positive, got 0.0"),
        ({"swap_tokens_per_s": math.nan}, "swap_tokens_per_s must be positive, got nan"),
    ],
)
def test_an_engine_that_is_none(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**sizes)


def test_whole_blocks_count() -> None:
    assert EngineConfig(num_kv_tokens=100, block_size=16).num_blocks == 6
