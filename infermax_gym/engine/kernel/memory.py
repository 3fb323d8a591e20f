"""The arrays of an engine, reached through its record.

Compiled steps pass one thing around: the engine's record `s`. Its arrays hang on addresses in that record. This
makes a call as cheap as in C (an array argument costs a reference count per call, and an engine has a dozen of
them), and a vector of engines is an array of records. `infermax_gym.engine.state.Engine` owns the memory and
keeps it alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from infermax_gym.compile import inlined
from infermax_gym.engine.cache import HOLD, NODE, SEGMENT
from infermax_gym.engine.layout import NUM_OUTPUT_BINS, REQUEST
from infermax_gym.engine.tenants import TENANT


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """An int64 address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@inlined
def requests(s: Any) -> Any:
    """(num_requests,) REQUEST."""
    return carray(pointer(s.req_address), (s.num_requests,), REQUEST)


@inlined
def queue_tree(s: Any) -> Any:
    """(2 * num_leaves,) int32."""
    return carray(pointer(s.tree_address), (2 * s.num_leaves,), np.int32)


@inlined
def validity(s: Any) -> Any:
    """(2, 2 * num_leaves) float64, only with moving keys."""
    return carray(pointer(s.valid_address), (2, 2 * s.num_leaves), np.float64)


@inlined
def running(s: Any) -> Any:
    """(list_size,) int64."""
    return carray(pointer(s.run_address), (s.list_size,), np.int64)


@inlined
def batch_of(s: Any) -> Any:
    """(list_size, 2) int64, (request, tokens)."""
    return carray(pointer(s.batch_address), (s.list_size, 2), np.int64)


@inlined
def sort_keys(s: Any) -> Any:
    """(list_size,) float64, scratch."""
    return carray(pointer(s.keys_address), (s.list_size,), np.float64)


@inlined
def sort_ids(s: Any) -> Any:
    """(list_size,) int64, scratch."""
    return carray(pointer(s.ids_address), (s.list_size,), np.int64)


@inlined
def phases_of(s: Any) -> Any:
    """(block_size,) int64, lock-step members by the tick, modulo the block size, at which they need a block."""
    return carray(pointer(s.phases_address), (s.block_size,), np.int64)


@inlined
def fresh_of(s: Any) -> Any:
    """(list_size,) int64, scratch."""
    return carray(pointer(s.fresh_address), (s.list_size,), np.int64)


@inlined
def histogram_of(s: Any) -> Any:
    """(64, 2) int64, count and sum."""
    return carray(pointer(s.histogram_address), (64, 2), np.int64)


@inlined
def outputs_of(s: Any) -> Any:
    """(1024,) int64, finished requests by output length."""
    return carray(pointer(s.outputs_address), (NUM_OUTPUT_BINS,), np.int64)


@inlined
def quantiles_of(s: Any) -> Any:
    """(1024,) int64, tokens."""
    return carray(pointer(s.quantiles_address), (NUM_OUTPUT_BINS,), np.int64)


@inlined
def tenants_of(s: Any) -> Any:
    """(num_tenants,) TENANT."""
    return carray(pointer(s.tenants_address), (s.num_tenants,), TENANT)


@inlined
def skipped_of(s: Any) -> Any:
    """(max_skips + 1,) int64, scratch."""
    return carray(pointer(s.skipped_address), (s.max_skips + 1,), np.int64)


@inlined
def preempted_of(s: Any) -> Any:
    """(preempted_size,) int64; element 0 counts the entries behind it."""
    return carray(pointer(s.preempted_address), (s.preempted_size,), np.int64)


@inlined
def theta_of(s: Any) -> Any:
    """(num_forms, 9) float64, cost coefficients."""
    return carray(pointer(s.theta_address), (s.num_forms, 9), np.float64)


@inlined
def term_ends_of(s: Any) -> Any:
    """(num_terms,) int64, see `cost.kernel.batch_seconds`."""
    return carray(pointer(s.term_end_address), (s.num_terms,), np.int64)


@inlined
def nodes_of(s: Any) -> Any:
    """(num_nodes,) NODE, the prefix tree."""
    return carray(pointer(s.nodes_address), (s.num_nodes,), NODE)


@inlined
def segments_of(s: Any) -> Any:
    """(num_segments,) SEGMENT."""
    return carray(pointer(s.segments_address), (s.num_segments,), SEGMENT)


@inlined
def holds_of(s: Any) -> Any:
    """(num_holds,) HOLD, one per request with a prefix cache."""
    return carray(pointer(s.holds_address), (s.num_holds,), HOLD)


@inlined
def gaps_of(s: Any) -> Any:
    """(gaps_size,) float64, seconds between a token and its request's previous one."""
    return carray(pointer(s.gaps_address), (s.gaps_size,), np.float64)


@inlined
def gap_counts_of(s: Any) -> Any:
    """(gaps_size,) int64, how many tokens had that gap."""
    return carray(pointer(s.gap_counts_address), (s.gaps_size,), np.int64)


@inlined
def spans_of(s: Any) -> Any:
    """(spans_size, 2) float64, start and end of each iteration."""
    return carray(pointer(s.spans_address), (s.spans_size, 2), np.float64)


@inlined
def ends_of(s: Any) -> Any:
    """(spans_size, 2) int64, where an iteration's entries in members and victims end."""
    return carray(pointer(s.ends_address), (s.spans_size, 2), np.int64)


@inlined
def members_of(s: Any) -> Any:
    """(members_size, 2) int64, (request, tokens)."""
    return carray(pointer(s.members_address), (s.members_size, 2), np.int64)


@inlined
def victims_of(s: Any) -> Any:
    """(victims_size,) int64, preempted requests."""
    return carray(pointer(s.victims_address), (s.victims_size,), np.int64)
