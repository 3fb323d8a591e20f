"""The prefix cache: kernel against reference, its invariants, and what it must and must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, Policy, cached_tokens, simulate
from infermax_gym.engine.kernel.run import run
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.engine.prefix_tree import covered_tokens, prefix_tree
from infermax_gym.engine.state import allocate
from infermax_gym.workload.workload import Workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, policies, predictions, with_prefixes, workloads
from tests.engine.test_against_reference import same_run, with_victims
from tests.reference import simulate_reference

CACHING = st.builds(replace, configs(), prefix_caching=st.just(True), empty_blocks_first=st.booleans())


@examples(500)
@given(data=st.data(), workload=with_prefixes(), config=CACHING, policy=policies())
def test_random_runs(data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy) -> None:
    predicted = data.draw(predictions(workload))
    expected = simulate_reference(workload, config, policy, predicted)
    recorded = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    assert recorded.schedule is not None
    for ours, theirs in zip(with_victims(recorded), with_victims(expected), strict=True):
        assert ours == theirs
    same_run(recorded, expected)
    np.testing.assert_array_equal(recorded.num_cached_tokens_of, expected.num_cached_tokens)
    for fast_forward in (True, False):
        quick = simulate(workload, config, policy, predicted=predicted, fast_forward=fast_forward)
        same_result(quick, recorded)
        np.testing.assert_array_equal(quick.num_cached_tokens_of, expected.num_cached_tokens)


@examples(200)
@given(data=st.data(), workload=with_prefixes(), config=CACHING, policy=policies())
def test_invariants_hold_throughout(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    predicted = data.draw(predictions(workload))
    checked = simulate(workload, config, policy, predicted=predicted, debug=True)
    same_result(simulate(workload, config, policy, predicted=predicted), checked)
    assert (checked.status != 2).all(), "every request is finished or rejected in the end"


def simple(lengths: list[tuple[int, int]], hashes: list[list[int]], size: int, gap_s: float = 100.0) -> Workload:
    """Requests far apart, so that each finds what those before it have left."""
    return Workload(
        np.arange(len(lengths)) * gap_s,
        [prompt for prompt, _ in lengths],
        [output for _, output in lengths],
        prefix_blocks=[item for row in hashes for item in row],
        prefix_start=np.cumsum([0, *map(len, hashes)]),
        prefix_block_size=size,
    )


def cached(workload: Workload, num_kv_tokens: int = 10_000, block_size: int = 16, **settings: object) -> list[int]:
    config = EngineConfig(num_kv_tokens=num_kv_tokens, block_size=block_size, prefix_caching=True, **settings)  # type: ignore[arg-type]
    return simulate(workload, config, Policy("fcfs"), debug=True).num_cached_tokens_of.tolist()


def test_at_least_the_last_token_is_computed() -> None:
    """A prompt that is there to its end, and ends with a block, has its last block computed once more."""
    assert cached(simple([(64, 2)] * 3, [[1, 2, 3, 4]] * 3, 16)) == [0, 48, 48]
    assert cached(simple([(65, 2)] * 3, [[1, 2, 3, 4]] * 3, 16)) == [0, 64, 64]


def test_trace_blocks_need_not_fit_engine_blocks() -> None:
    """Two hashes of 24 tokens in common are three blocks of 16, two of 20, one of 48; half a block is none."""
    workload = simple([(90, 2)] * 2, [[1, 2, 3, 4], [1, 2, 8, 9]], 24)
    found = {b: cached(workload, block_size=b)[1] for b in (1, 5, 16, 20, 24, 48, 49, 64)}
    assert found == {1: 48, 5: 45, 16: 48, 20: 40, 24: 48, 48: 48, 49: 0, 64: 0}


def test_hashes_speak_of_the_whole_way() -> None:
    """The same hash behind another one is another block."""
    assert cached(simple([(64, 2)] * 3, [[1, 2, 3, 4], [9, 2, 3, 4], [1, 2, 9, 4]], 16)) == [0, 0, 32]


def test_the_last_hash_may_cover_less_than_a_block() -> None:
    """Prompts of 40 tokens with hashes for 48 share 40 tokens, not the answers that come after them."""
    assert cached(simple([(40, 30)] * 2, [[1, 2, 3]] * 2, 16, 1000.0), block_size=4) == [0, 36]


def test_hashed_outputs_are_found_by_the_next_turn() -> None:
    turns = simple([(32, 33), (80, 2), (80, 2)], [[1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 9, 9]], 16, 1000.0)
    assert cached(turns) == [0, 64, 48]
    assert cached(simple([(32, 33), (80, 2)], [[1, 2], [1, 2, 3, 4, 5]], 16, 1000.0)) == [0, 32]


def test_the_longest_unused_goes_first() -> None:
    """Room for 12 blocks: each request leaves 4, of which the last goes first when others need them."""
    family = {name: [10 * i + j for j in range(4)] for i, name in enumerate("ABCD")}

    def found(*names: str) -> list[int]:
        return cached(simple([(64, 1)] * len(names), [family[name] for name in names], 16), num_kv_tokens=12 * 16)

    assert found("A", "B", "C", "A") == [0, 0, 0, 48]
    assert found("A", "B", "C", "D", "C", "B", "A") == [0, 0, 0, 0, 48, 48, 0]
    assert found("A", "B", "A", "C", "D", "A", "B") == [0, 0, 48, 0, 0, 48, 0]


def test_two_at_once_share_what_the_first_computes() -> None:
    """In one iteration, as in vLLM: the second computes its own last tokens only."""
    workload = simple([(64, 2), (70, 2)], [[1, 2, 3, 4], [1, 2, 3, 4]], 16, gap_s=0.0)
    assert cached(workload) == [0, 64]
    config = EngineConfig(num_kv_tokens=6 * 16, prefix_caching=True)
    run = simulate(workload, config, Policy("fcfs"), record_schedule=True, debug=True)
    assert run.schedule is not None
    assert run.schedule[0].batch == ((0, 64), (1, 6)), "4 shared blocks and 1 of its own each"


def test_more_may_run_than_there_are_blocks() -> None:
    """All prompts are the same block: whoever has joined gives back its own, and the next finds room."""
    workload = simple([(1, 1)] * 4, [[1]] * 4, 1, gap_s=0.0)
    config = EngineConfig(num_kv_tokens=2, block_size=1, prefix_caching=True)
    run = simulate(workload, config, Policy("fcfs"), record_schedule=True, debug=True)
    expected = simulate_reference(workload, config, Policy("fcfs"))
    assert with_victims(run) == with_victims(expected)
    assert [entry.batch for entry in run.schedule or ()] == [((0, 1), (1, 1), (2, 1), (3, 1))]


def test_an_engine_says_what_a_request_would_find() -> None:
    hashes = [[1, 2, 3, 4], [1, 2, 9, 9], [8, 8], [1, 2, 3, 4]]
    workload = simple([(64, 2), (64, 2), (40, 2), (64, 2)], hashes, 16)
    policy = Policy("fcfs")
    engine = allocate(workload, EngineConfig(prefix_caching=True), policy)
    assert [cached_tokens(engine, r) for r in (1, 2, 3)] == [0, 0, 0]
    run(engine.core, 1, np.inf, False)
    assert [cached_tokens(engine, r) for r in (1, 2, 3)] == [32, 0, 48]
    assert cached_tokens(engine, 3, 65) == 64
    assert cached_tokens(allocate(workload, EngineConfig(), policy), 0) == 0


@examples(100)
@given(workload=with_prefixes(), config=CACHING, policy=policies())
def test_a_copy_goes_on_alike(workload: Workload, config: EngineConfig, policy: Policy) -> None:
    predicted = workload.num_output_tokens.astype(float)
    engine = allocate(workload, config, policy, predicted)
    run(engine.core, 7, np.inf, True)
    twin = engine.copy()
    run(engine.core, NO_LIMIT, np.inf, True)
    assert twin.record["num_iterations"][0] <= 7 + engine.record["num_iterations"][0]
    run(twin.core, NO_LIMIT, np.inf, True)
    np.testing.assert_array_equal(engine.requests["finish_s"], twin.requests["finish_s"])
    for name in ("nodes", "segments", "holds"):
        np.testing.assert_array_equal(engine.arrays[name], twin.arrays[name])


@examples(200)
@given(workload=with_prefixes(), block_size=st.sampled_from([1, 2, 3, 4, 16]))
def test_the_tree_says_who_shares_what(workload: Workload, block_size: int) -> None:
    """Against the definition: common leading hashes, times their size, cut by what both cover."""
    tree = prefix_tree(workload, block_size)
    n, size, covered = len(workload), workload.prefix_block_size, covered_tokens(workload)
    assert len(tree.parent) <= 2 * n

    def way(u: int) -> list[int]:
        return [] if u < 0 else [*way(int(tree.parent[u])), u]

    edges = workload.prefix_start
    hashes = [workload.prefix_blocks[edges[r] : edges[r + 1]].tolist() for r in range(n)]
    for a in range(n):
        for b in range(a):
            common = sum(all(x == y for x, y in zip(hashes[a][: k + 1], hashes[b][: k + 1], strict=True))
                         for k in range(min(len(hashes[a]), len(hashes[b]))))  # fmt: skip
            expected = min(common * size, covered[a], covered[b]) // block_size
            both = [u for u in way(a) if u in way(b)]
            assert (tree.end[both[-1]] if both else 0) == expected


@examples(200)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_without_preemptions_and_sharing_nothing_changes(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    predicted = data.draw(predictions(workload))
    plain = simulate(workload, config, policy, predicted=predicted)
    if plain.num_preemptions == 0:
        same_result(simulate(workload, replace(config, prefix_caching=True), policy, predicted=predicted), plain)
