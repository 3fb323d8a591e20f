"""Which blocks of which requests hold the same tokens: the prefix tree of a workload.

Two requests share their first floor(min(L P, covered) / b) engine blocks, where P is the size of the trace's prefix
blocks, L how many leading hashes they have in common, b the size of an engine block, and `covered` the tokens that
the hashes of both speak of. The tree is compressed: a node is a run of blocks that the same requests go through, so
n requests need at most 2 n nodes, however long their prompts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import compiled
from infermax_gym.workload.workload import Workload

ENDLESS = 2**62


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Nodes 0 .. n - 1 are the leaves: what request r shares with nobody. The others are shared runs.

    Attributes:
        parent: (num_nodes,) int64, -1 at a root.
        start: (num_nodes,) int64, the run's first block, counted from the beginning of the request.
        end: (num_nodes,) int64, the block behind its last one; `ENDLESS` for leaves.
    """

    parent: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def covered_tokens(workload: Workload) -> NDArray[np.int64]:
    """(n,) int64, leading tokens of each request that its prefix hashes speak of.

    That is the prompt (or as much of it as there are hashes for); a request with more hashes than its prompt has
    blocks is one whose output is hashed as well, block by block.
    """
    size = workload.prefix_block_size
    num_hashes = np.diff(workload.prefix_start)
    prompts = workload.num_prompt_tokens
    hashes_output = num_hashes * size >= prompts + size
    known = np.where(hashes_output, prompts + workload.num_output_tokens, prompts)
    return np.asarray(np.minimum(num_hashes * size, known))


def prefix_tree(workload: Workload, block_size: int) -> PrefixTree:
    """The tree of a workload's requests, in blocks of `block_size` tokens."""
    n = len(workload)
    size = max(workload.prefix_block_size, 1)
    blocks = covered_tokens(workload) // block_size
    num_hashes = -(-blocks * block_size // size)  # those that whole engine blocks reach into
    first = workload.prefix_start[:-1]
    text = workload.prefix_blocks.tobytes()
    spans = zip((first * 8).tolist(), ((first + num_hashes) * 8).tolist(), blocks.tolist(), strict=True)
    keys = [(text[a:b], count) for a, b, count in spans]
    order = np.array(sorted(np.flatnonzero(blocks).tolist(), key=keys.__getitem__), np.int64)
    parent, end = np.full(2 * n, -1, np.int64), np.full(2 * n, ENDLESS, np.int64)
    shared = _shared_blocks(order, first, num_hashes, workload.prefix_blocks, blocks, size, block_size)
    count = _grow(order, shared, parent, end, n)
    parent, end = parent[:count], end[:count]
    start = np.where(parent >= 0, end[parent], 0)
    return PrefixTree(parent, start, end)


@compiled
def _shared_blocks(
    order: Any, first: Any, num_hashes: Any, hashes: Any, blocks: Any, size: int, block_size: int
) -> Any:
    """(len(order),) blocks that each request shares with the one before it in `order`."""
    shared = np.zeros(len(order), np.int64)
    for i in range(1, len(order)):
        a = order[i - 1]
        b = order[i]
        most = min(num_hashes[a], num_hashes[b])
        common = 0
        while common < most and hashes[first[a] + common] == hashes[first[b] + common]:
            common += 1
        shared[i] = min(common * size // block_size, min(blocks[a], blocks[b]))
    return shared


@compiled
def _grow(order: Any, shared: Any, parent: Any, end: Any, count: int) -> Any:
    """Fill `parent` and `end`; neighbours in `order` share most. Returns the number of nodes."""
    path = np.empty(len(order) + 1, np.int64)
    depth = 0
    for i in range(len(order)):
        last = -1
        while depth > 0 and end[path[depth - 1]] > shared[i]:
            last = path[depth - 1]
            depth -= 1
        above = path[depth - 1] if depth > 0 else -1
        if shared[i] > 0 and (above < 0 or end[above] < shared[i]):
            end[count] = shared[i]
            parent[count] = above
            parent[last] = count
            path[depth] = count
            depth += 1
            above = count
            count += 1
        parent[order[i]] = above
        path[depth] = order[i]
        depth += 1
    return count
