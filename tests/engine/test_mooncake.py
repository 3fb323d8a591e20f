"""Mooncake's trace with its hashes: what an endless prefix cache finds is what the trace repeats."""

from __future__ import annotations

import numpy as np

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import Workload, read_workload
from tests.shared import SHARED, needs_shared


def repeated_tokens(workload: Workload, block_size: int) -> np.ndarray:
    """(n,) whole blocks of each prompt whose hashes came before, in tokens, at least the last token left out."""
    seen: set[int] = set()
    edges, size = workload.prefix_start, workload.prefix_block_size
    found = []
    for r, prompt in enumerate(workload.num_prompt_tokens.tolist()):
        hashes = workload.prefix_blocks[edges[r] : edges[r + 1]].tolist()
        known = next((i for i, item in enumerate(hashes) if item not in seen), len(hashes))
        seen.update(hashes)
        found.append(min(known * size, prompt - 1) // block_size * block_size)
    return np.array(found)


@needs_shared
def test_an_endless_cache_finds_what_is_repeated() -> None:
    """Served one after another. A hash of this trace names all that is before it, so it needs no tree here."""
    assert SHARED is not None
    path = SHARED / "data" / "mooncake_conversation_head.jsonl"
    workload = read_workload(path, first=1_500, time_scale=1e4)
    assert workload.prefix_block_size == 512 and len(workload.prefix_blocks) > 20_000
    config = EngineConfig(num_kv_tokens=100_000_000, max_num_batched_tokens=8_192, prefix_caching=True)
    result = simulate(workload, config, POLICIES["vllm-v1"])
    in_turn = np.diff(workload.arrival_s, prepend=-1.0) > 0.0  # others arrive together, and share within a batch
    expected = repeated_tokens(workload, config.block_size)
    np.testing.assert_array_equal(result.num_cached_tokens_of[in_turn], expected[in_turn])
    assert result.num_cached_tokens_of.sum() > 0.1 * workload.num_prompt_tokens.sum()


@needs_shared
def test_a_smaller_cache_finds_less() -> None:
    assert SHARED is not None
    workload = read_workload(SHARED / "data" / "mooncake_conversation_head.jsonl", first=1_000)
    rates = []
    for num_kv_tokens in (200_000, 1_000_000, 10_000_000):
        config = EngineConfig(num_kv_tokens=num_kv_tokens, max_num_batched_tokens=2_048, prefix_caching=True)
        result = simulate(workload, config, POLICIES["sarathi"])
        assert result.finished.all()
        assert result.prefix_hit_rate is not None
        rates.append(result.prefix_hit_rate)
    assert rates[0] < rates[1] < rates[2]
