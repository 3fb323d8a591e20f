"""The study of vLLM's experiments on preemption."""

from __future__ import annotations

import re

import numpy as np

from experiments.studies import preemption
from infermax_gym.baselines.policies import POLICIES


def test_lengths_are_as_published() -> None:
    workload = preemption.WATERMARK_LENGTHS.workload(3)
    assert len(workload) == 450
    assert (workload.arrival_s == 0.0).all()
    assert 800 <= workload.num_prompt_tokens.min() < 810 and 1190 < workload.num_prompt_tokens.max() <= 1200
    assert 4000 <= workload.num_output_tokens.min() < 4050 and 5950 < workload.num_output_tokens.max() <= 6000


def test_outcomes_are_shares_of_what_was_computed() -> None:
    found = preemption.run(POLICIES["vllm"], preemption.WATERMARK_ENGINE, preemption.WATERMARK_LENGTHS, (0,))
    workload = preemption.WATERMARK_LENGTHS.workload(0)
    needed = (workload.num_prompt_tokens + workload.num_output_tokens - 1).sum()
    (redone,) = found.num_recomputed_tokens
    np.testing.assert_allclose(found.recompute_tax, [redone / (needed + redone)])
    assert 900 < found.num_preemptions[0] < 1300, "1,065 were published"


def test_the_section_is_whole_and_replaces_the_one_before() -> None:
    text = preemption.section((0,))
    assert not re.search(r"\{[a-z]+\}| nan ", text)
    assert text.count("\n| ") == 11, "two heads, five watermarks, four sizes"
