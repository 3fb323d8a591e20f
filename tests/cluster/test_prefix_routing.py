"""Routers that keep a map of prefixes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Arrival, Fleet, Router, Score, simulate_fleet
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload, make_workload
from tests.cluster.test_identities import chosen

CONFIG = EngineConfig(num_kv_tokens=30_000, prefix_caching=True)
AWARE = ROUTERS["prefix-aware"]


def fleet(num_replicas: int = 4, config: EngineConfig = CONFIG) -> Fleet:
    return Fleet.uniform(num_replicas, config, POLICIES["vllm-v1"])


def chats() -> Workload:
    return make_workload("conversations", 1_200, seed=1).with_rate(8.0)


def test_conversations_stay_together_and_hit_more() -> None:
    workload = chats()
    names = ("least-outstanding", "prefix-aware", "lmetric")
    runs = {name: simulate_fleet(workload, fleet(), ROUTERS[name]) for name in names}
    hits = {name: run.pooled.prefix_hit_rate or 0.0 for name, run in runs.items()}
    assert hits["prefix-aware"] > hits["lmetric"] > hits["least-outstanding"] + 0.05
    assert runs["lmetric"].pooled.ttft_s.mean() < 0.9 * runs["least-outstanding"].pooled.ttft_s.mean()


def test_without_caches_nothing_matches() -> None:
    """Then the rule balances the prompt tokens sent, and LMetric has nothing to take off."""
    workload, off = chats(), fleet(config=replace(CONFIG, prefix_caching=False))
    plain = replace(workload, prefix_blocks=[], prefix_start=np.zeros(len(workload) + 1), prefix_block_size=0)
    for name in ("prefix-aware", "lmetric"):
        with_hashes = simulate_fleet(workload, off, ROUTERS[name])
        without = simulate_fleet(plain, off, ROUTERS[name])
        np.testing.assert_array_equal(with_hashes.replica_of, without.replica_of)
    sent = [int(workload.num_prompt_tokens[:40][with_hashes.replica_of[:40] == i].sum()) for i in range(4)]
    assert len(set(sent)) > 1
    blind = simulate_fleet(workload, fleet(), replace(ROUTERS["lmetric"], uses_prefixes=False))
    assert (blind.replica_of != simulate_fleet(workload, fleet(), ROUTERS["lmetric"]).replica_of).any()


def test_the_rule_by_hand() -> None:
    """Blocks of 16: two families that share 64 of 80 tokens, and a stranger."""
    hashes = [[1, 1, 1, 1, k] if family else [2, 2, 2, 2, k] for k, family in enumerate([1, 0, 1, 0, 1, 1])]
    hashes.append([9, 9, 9, 9, 9])
    flat = [h for each in hashes for h in each]
    workload = Workload(
        np.arange(7.0) * 100.0,
        np.full(7, 80),
        np.full(7, 2),
        prefix_blocks=flat,
        prefix_start=np.arange(0, 36, 5),
        prefix_block_size=16,
    )
    # The first two open replicas 0 and 1; then families stay; the stranger goes where least was sent: replica 2.
    result = simulate_fleet(workload, fleet(3), AWARE)
    assert result.replica_of.tolist() == [0, 1, 0, 1, 0, 0, 2]
    assert result.pooled.num_cached_tokens_of.tolist() == [0, 0, 64, 64, 64, 64, 0]
    # A match of 0.8 of the prompt is not enough for this one: everybody goes where least was sent.
    picky = simulate_fleet(workload, fleet(3), replace(AWARE, least_match=0.8))
    assert picky.replica_of[2] == 2


def test_what_was_sent_long_ago_is_forgotten() -> None:
    """A family of two, with 3,000 tokens of others between them, on replicas of 1,600 and of 6,400 tokens."""
    hashes = [[1] * 60, *[[k] * 60 for k in range(10, 13)], [1] * 60]
    workload = Workload(
        np.arange(5.0) * 100.0,
        np.full(5, 1_000),
        np.full(5, 2),
        prefix_blocks=[h for each in hashes for h in each],
        prefix_start=np.arange(0, 301, 60),
        prefix_block_size=16,
    )
    seen: list[int] = []

    class Watch:
        name = "watch"

        def choose(self, arrival: Arrival) -> int:
            seen.append(int(arrival.matched_tokens[0]))
            return 0

    for size in (1_600, 6_400):
        simulate_fleet(workload, fleet(1, replace(CONFIG, num_kv_tokens=size)), Watch())
    assert seen == [0, 0, 0, 0, 0, 0, 0, 0, 0, 960]


def test_loads_that_differ_too_much_end_loyalty() -> None:
    workload = replace(chats(), arrival_s=np.arange(1_200) * 1e-3)
    loyal = simulate_fleet(workload, fleet(), replace(AWARE, most_difference=1e9))
    fair = simulate_fleet(workload, fleet(), replace(AWARE, most_difference=4.0))
    assert fair.request_imbalance < loyal.request_imbalance


def test_llm_d_by_hand() -> None:
    """Two of three replicas have a queue; a match of half the prompt is worth as much as the shorter one."""
    signals = np.zeros((6, 3))
    signals[0] = [4.0, 0.0, 2.0]
    signals[4] = [500.0, 100.0, 300.0]
    constants = np.array([[1000.0] * 3, [200.0] * 3])
    row = ROUTERS["llm-d"]

    def best(*matched: int, **weights: tuple[float, float, float]) -> int:
        return chosen(replace(row, **weights), signals, constants=constants, matched=np.array(matched))

    assert best(0, 0, 0) == 1  # 0.5 against 1.1 against 0.8
    assert best(16, 0, 0) == 0  # 0.64 + 0.5 against 1.1
    assert best(14, 0, 0) == 1  # 0.56 + 0.5 against 1.1
    assert best(0, 0, 32) == 2  # 1.28 + 0.5 + 0.3
    assert best(0, 0, 0, share_weights=(0.0, 0.0, 1.0)) == 0


def test_e2_by_hand() -> None:
    """A prompt of 50; replicas of 1,000 tokens, the second twice as fast."""
    constants = np.array([[1000.0] * 3, [100.0, 200.0, 100.0]])
    row, none = ROUTERS["preble"], np.zeros((6, 3))

    def best(matched: list[int], load: list[int], sent: list[int]) -> int:
        known = {"matched": np.array(matched), "recent_tokens": np.array(load), "sent": np.array(sent)}
        return chosen(row, none, constants=constants, **known)

    assert best([26, 0, 26], [900, 0, 800], [0, 0, 0]) == 2  # exploit: the lighter owner, however heavy
    assert best([25, 0, 25], [900, 0, 800], [0, 0, 0]) == 1  # 25 of 50 is not more than what is left
    assert best([0, 0, 0], [100, 210, 100], [0, 0, 0]) == 1  # 1.5 s, 1.3 s, 1.5 s
    assert best([0, 0, 0], [100, 210, 100], [0, 980, 0]) == 1  # and 30 tokens evicted: 1.45 s
    assert best([0, 0, 20], [100, 210, 100], [0, 5000, 0]) == 2  # 1.5 s, 1.55 s, 1.3 s


def test_the_recent_load_forgets() -> None:
    """Prompts of 900 and of 100 by turns: as long as the first counts, the second replica gets what comes."""
    workload = Workload([0.0, 1.0, 2.0, 3.0], [900, 100, 100, 100], [2, 2, 2, 2])
    for recent_s, expected in ((180.0, [0, 1, 1, 1]), (2.5, [0, 1, 1, 0]), (0.5, [0, 1, 0, 1])):
        row = replace(ROUTERS["preble"], recent_s=recent_s)
        assert simulate_fleet(workload, fleet(2), row).replica_of.tolist() == expected


def test_deficits_are_counted_as_the_paper_counts_them() -> None:
    """Counters that are topped up when a tenant has none left anywhere, one by one."""
    workload = make_workload("conversations", 400, seed=3).with_rate(8.0)
    row = replace(ROUTERS["d2lpm"], quantum_tokens=2_000)
    went: list[int] = []
    credit = np.zeros((len(workload.tenant_names), 4))

    class Deficits:
        name = "deficits"
        last = 3

        def choose(self, arrival: Arrival) -> int:
            mine = credit[workload.tenant[arrival.request]]
            while mine.max() <= 0.0:
                mine += row.quantum_tokens
            line = [(self.last + 1 + k) % 4 for k in range(4)]
            self.last = max((i for i in line if mine[i] > 0.0), key=lambda i: arrival.matched_tokens[i])
            mine[self.last] -= arrival.num_prompt_tokens - arrival.matched_tokens[self.last]
            went.append(self.last)
            return self.last

    simulate_fleet(workload, fleet(), Deficits())
    result = simulate_fleet(workload, fleet(), row)
    assert result.replica_of.tolist() == went
    loyal = simulate_fleet(workload, fleet(), replace(row, quantum_tokens=10**9))
    assert (loyal.replica_of != result.replica_of).any()
    assert (loyal.pooled.prefix_hit_rate or 0.0) > (result.pooled.prefix_hit_rate or 0.0)


def test_bad_settings_say_so() -> None:
    with pytest.raises(ValueError, match="uses prefixes"):
        Router("x", score=Score.PREFIX)
    with pytest.raises(ValueError, match="looks at all"):
        Router("x", score=Score.PREFIX, uses_prefixes=True, num_choices=2)
    with pytest.raises(ValueError, match="limits of PREFIX"):
        Router("x", score=Score.PREFIX, uses_prefixes=True, least_match=-1.0)
    with pytest.raises(ValueError, match="E2 looks at all"):
        replace(ROUTERS["preble"], num_choices=2)
    with pytest.raises(ValueError, match="share_weights"):
        replace(ROUTERS["llm-d"], share_weights=(1.0, -1.0, 0.0))
    with pytest.raises(ValueError, match="recent_s"):
        replace(ROUTERS["preble"], recent_s=0.0)
    with pytest.raises(ValueError, match="quantum_tokens"):
        replace(ROUTERS["d2lpm"], quantum_tokens=0)
