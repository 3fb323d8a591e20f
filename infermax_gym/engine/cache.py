"""The memory of the prefix cache: its records, and how they look before the first request.

`infermax_gym.engine.kernel.prefix` says what they mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.prefix_tree import PrefixTree, prefix_tree
from infermax_gym.workload.workload import Workload

NODE = np.dtype(
    [
        ("parent", "i8"),  # -1 at a root
        ("start", "i8"),  # its first block, counted from the beginning of the request
        ("end", "i8"),
        ("present", "i8"),  # so many of its first blocks are in memory
        ("last", "i8"),  # segment with the last of them, -1 if there is none
    ],
    align=True,
)

SEGMENT = np.dtype(
    [
        ("node", "i8"),  # -1: without contents
        ("up", "i8"),  # the segment before it on the way from the root, -1 if there is none; next spare one
        ("size", "i8"),  # blocks, at least one
        ("refs", "i8"),  # requests that hold it; 0: it stands in the queue
        ("older", "i8"),
        ("newer", "i8"),
    ],
    align=True,
)

HOLD = np.dtype(
    [
        ("leaf", "i8"),  # node of what the request shares with nobody
        ("depth", "i8"),  # its leading blocks that are published
        ("tip", "i8"),  # segment that ends there, -1 if depth is 0
        ("lost", "i8"),  # tokens that its last preemption dropped and it has not come back for
        ("cached", "i8"),  # tokens that it found without ever having computed them
        ("next", "i8"),  # finished request behind it that keeps its blocks
    ],
    align=True,
)


def cache_arrays(core: Any, num_blocks: int, leaves: NDArray[np.int64], tree: PrefixTree) -> dict[str, NDArray[Any]]:
    """Arrays of an empty cache, and its scalars in `core`.

    Args:
        core: (1,) record of the engine.
        num_blocks: KV capacity.
        leaves: (n,) int64, node of each request's leaf (-1: it says so when it comes); empty without a cache.
        tree: of the workload.
    """
    nodes = np.zeros(len(tree.parent), NODE)
    nodes["parent"], nodes["start"], nodes["end"], nodes["last"] = tree.parent, tree.start, tree.end, -1
    holds = _fresh_holds(leaves)
    segments = np.zeros(num_blocks + 1, SEGMENT)
    segments["node"] = -1
    segments["up"][1:-1] = np.arange(2, num_blocks + 1)
    segments["up"][[0, -1]] = -1
    segments["size"][0] = num_blocks
    segments["older"][0] = segments["newer"][0] = -1
    core["num_nodes"], core["num_segments"], core["num_holds"] = len(nodes), len(segments), len(holds)
    core["queued_blocks"] = num_blocks
    core["oldest_segment"] = core["newest_segment"] = 0
    core["spare_segment"] = 1 if num_blocks > 0 else -1
    core["first_withheld"] = core["last_withheld"] = -1
    return {"nodes": nodes, "segments": segments, "holds": holds}


def _fresh_holds(leaves: NDArray[np.int64]) -> NDArray[Any]:
    holds = np.zeros(len(leaves), HOLD)
    holds["leaf"], holds["tip"] = leaves, -1
    return holds


def more_holds(core: Any, holds: NDArray[Any], num_slots: int) -> NDArray[Any]:
    """The same for an engine that gets room for `num_slots` requests; without a cache as it was."""
    if not core["prefix_caching"][0]:
        return holds
    core["num_holds"] = num_slots
    return np.concatenate((holds, _fresh_holds(np.full(num_slots - len(holds), -1))))


def prefix_cache(core: Any, workload: Workload, config: EngineConfig, num_slots: int | None) -> dict[str, NDArray[Any]]:
    """The arrays of an engine's cache, empty ones where it has none; sets the core's fields.

    Args:
        core: the engine's CORE record.
        workload: the requests, with their prefix hashes.
        config: the replica.
        num_slots: as in `allocate`.
    """
    none = np.zeros(0, np.int64)
    if not config.prefix_caching:
        return cache_arrays(core, 0, none, PrefixTree(none, none, none))
    tree = prefix_tree(workload, config.block_size)
    n = len(workload)
    core["prefix_caching"] = 1
    core["empty_blocks_first"] = config.empty_blocks_first
    # Decodes that fill blocks which others may ask for are served one by one.
    if np.any(tree.start[:n] * config.block_size > workload.num_prompt_tokens):
        core["one_by_one"] = 1
    # Requests that a router sends here say themselves which leaf is theirs.
    leaves = np.arange(n) if num_slots is None else np.full(num_slots, -1)
    return cache_arrays(core, config.num_blocks, leaves, tree)
