"""Conversations: what is shared is what is the same, and a longer sample begins like a shorter one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from infermax_gym.engine.prefix_tree import covered_tokens
from infermax_gym.workload import Conversations, Workload, WorkloadError, make_workload

WORKLOAD = make_workload("conversations", 3_000, seed=5)


def hashes_of(workload: Workload, request: int) -> list[int]:
    edges = workload.prefix_start
    return workload.prefix_blocks[edges[request] : edges[request + 1]].tolist()


def common(a: list[int], b: list[int]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def test_the_hashes_are_those_of_whole_blocks_of_prompt_and_answer():
    total = WORKLOAD.num_prompt_tokens + WORKLOAD.num_output_tokens
    assert WORKLOAD.prefix_block_size == 16
    np.testing.assert_array_equal(np.diff(WORKLOAD.prefix_start), total // 16)
    covered = covered_tokens(WORKLOAD)
    assert np.all(covered >= WORKLOAD.num_prompt_tokens - 15) and np.all(covered <= total)


def test_a_turn_continues_the_one_before():
    """The last hash tells the conversation: its turns come in order, and each begins with all of the one before."""
    last: dict[int, int] = {}
    continued = 0
    for request in range(len(WORKLOAD)):
        hashes = hashes_of(WORKLOAD, request)
        conversation = hashes[-1] >> 32
        if conversation in last:
            before = last[conversation]
            whole = hashes_of(WORKLOAD, before)
            assert common(whole, hashes) == len(whole)
            assert WORKLOAD.num_prompt_tokens[request] > WORKLOAD.num_prompt_tokens[before]
            assert WORKLOAD.tenant[request] == WORKLOAD.tenant[before]
            continued += 1
        last[conversation] = request
    assert continued > 0.6 * len(WORKLOAD)


def test_applications_share_their_system_prompt_alone():
    first = [request for request in range(400) if hashes_of(WORKLOAD, request)[-1] >> 32 >= 8]
    for a, b in itertools.pairwise(first):
        if WORKLOAD.tenant[a] != WORKLOAD.tenant[b]:
            assert common(hashes_of(WORKLOAD, a), hashes_of(WORKLOAD, b)) == 0
    sizes = [len({h for r in first for h in hashes_of(WORKLOAD, r) if h >> 32 == k}) for k in range(8)]
    assert min(sizes) >= 4 and len(set(sizes)) > 1
    counts = np.bincount(WORKLOAD.tenant, minlength=8)
    assert counts[0] > 3 * counts[7] > 0


def test_turns_and_lengths():
    assert WORKLOAD.num_output_tokens.mean() == pytest.approx(250, rel=0.1)
    assert (WORKLOAD.num_prompt_tokens + WORKLOAD.num_output_tokens).max() <= 16_384


@pytest.mark.parametrize("wrong", [{"num_applications": 0}, {"mean_turns": 0.5}, {"pause_s": 0.0}, {"max_tokens": 0}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(WorkloadError, match="Conversations"):
        Conversations(**wrong)
