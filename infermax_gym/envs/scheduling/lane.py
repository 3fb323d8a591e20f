"""A lane: one engine under an agent, as memory that the compiled environment steps share.

A scalar environment has one lane, a vector environment many; both run the same compiled functions on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from infermax_gym.compile import inlined
from infermax_gym.engine.kernel.memory import pointer
from infermax_gym.envs.scheduling.layout import MOST_SLOTS

# Marks of requests that the agent touched in its turn.
ADMITTED = 1
PREEMPTED = 2

SPARE = 16
"""Entries of the lists of the queue beyond the slots that show them."""

LANE = np.dtype(
    [
        # layout
        ("num_chunk_budgets", "i8"),
        ("num_waiting_slots", "i8"),
        ("num_running_slots", "i8"),
        ("every_iteration", "i8"),  # ask before every iteration
        ("on_change", "i8"),  # ask of admissions only after an arrival, a finish or the end of a prefill
        ("within_budget", "i8"),  # somebody joins only while the next iteration has tokens left
        ("only_forced", "i8"),  # PREEMPT is legal only while RUN at full budget is not
        ("by_victim_key", "i8"),  # running slots show the largest victim keys, not the fewest processed tokens
        ("time_limit_s", "f8"),
        ("max_decisions", "i8"),
        ("most_turn_actions", "i8"),  # admissions and preemptions of a turn, after which the engine runs
        # the agent's turn
        ("status", "i8"),
        ("level", "i8"),  # of the last RUN
        ("seen_arrivals", "i8"),  # requests that had arrived at the last RUN
        ("seen_finishes", "i8"),  # requests that had finished at the last RUN
        ("seen_prefills", "i8"),  # running prefills at the last RUN
        ("seen_spare", "i8"),  # whether tokens were spare at the last RUN
        ("num_waiting_shown", "i8"),
        ("num_running_shown", "i8"),
        # lists of the queue, see `infermax_gym.envs.scheduling.waiting`
        ("num_ranked", "i8"),
        ("ranked_is_all", "i8"),  # the whole queue is in it
        ("num_oldest", "i8"),
        ("oldest_is_all", "i8"),
        ("queue_changed", "i8"),  # since the waiting slots were filled
        # of the queue that the lists know
        ("listed_arrivals", "i8"),
        ("listed_preemptions", "i8"),
        ("listed_waiting", "i8"),
        ("num_touched", "i8"),
        ("num_admitted", "i8"),  # since the last iteration
        ("num_preempted", "i8"),
        ("num_turn_actions", "i8"),  # admissions and preemptions since the last iteration
        ("demand", "i8"),  # blocks for the next token of every decode
        ("spare_tokens", "i8"),  # of the token budget, once every running request has taken what it can
        # totals of the episode
        ("num_decisions", "i8"),
        ("num_illegal", "i8"),
        ("handed_over", "i8"),  # whether the fallback policy has served the rest
        ("num_by_agent", "i8"),  # requests that had finished when it took over
        # as of the last step, for rewards
        ("last_clock_s", "f8"),
        ("last_system_seconds", "f8"),
        ("last_unstarted_seconds", "f8"),
        ("last_busy_s", "f8"),
        ("last_num_good", "i8"),
        ("last_num_finished", "i8"),
        ("slots_address", "i8"),
        ("levels_address", "i8"),
        ("touched_address", "i8"),
        ("touched_size", "i8"),
        ("needs_address", "i8"),
        ("scratch_address", "i8"),
        ("queue_address", "i8"),
    ],
    align=True,
)


class Lane:
    """The record of a lane and the arrays behind its addresses.

    Attributes:
        record: (1,) LANE.
        slots: (num_waiting_slots + num_running_slots,) int64, the request in each slot, -1 in an empty one; of a
            running slot, the position in the running list.
        levels: (num_chunk_budgets,) int64, chunk budgets in tokens.
        touched: (touched_size,) int64, requests admitted or preempted since the last iteration.
        needs: (num_waiting_slots,) int64, blocks that admitting the request in each waiting slot takes.
        scratch: (2, MOST_SLOTS + SPARE) int64, for the search of slots.
        queue: (3 * num_waiting_slots + 3 * SPARE,) int64: the smallest queue keys, their requests, and the oldest.
    """

    def __init__(self, record: Any, levels: NDArray[np.int64], touched_size: int) -> None:
        num_slots = int(record["num_waiting_slots"][0] + record["num_running_slots"][0])
        self.record = record
        self.slots = np.full(num_slots, -1, np.int64)
        self.levels = levels
        self.touched = np.zeros(touched_size, np.int64)
        self.needs = np.zeros(int(record["num_waiting_slots"][0]), np.int64)
        self.scratch = np.zeros((2, MOST_SLOTS + SPARE), np.int64)
        self.queue = np.zeros(3 * (self.needs.size + SPARE), np.int64)
        self._address()

    def _address(self) -> None:
        self.record["slots_address"] = self.slots.ctypes.data
        self.record["levels_address"] = self.levels.ctypes.data
        self.record["touched_address"] = self.touched.ctypes.data
        self.record["touched_size"] = self.touched.size
        self.record["needs_address"] = self.needs.ctypes.data
        self.record["scratch_address"] = self.scratch.ctypes.data
        self.record["queue_address"] = self.queue.ctypes.data

    def __reduce__(self) -> tuple[Any, ...]:
        # Built anew, so that the record of a duplicate has the addresses of its own arrays.
        return _rebuild, (self.record, self.levels, self.slots, self.touched, self.needs, self.queue)

    @property
    def core(self) -> Any:
        """The record as compiled steps take it."""
        return self.record[0]

    def copy(self) -> Lane:
        """An independent copy."""
        return _rebuild(self.record.copy(), self.levels.copy(), self.slots, self.touched, self.needs, self.queue)


def _rebuild(
    record: Any,
    levels: NDArray[np.int64],
    slots: NDArray[np.int64],
    touched: NDArray[np.int64],
    needs: NDArray[np.int64],
    queue: NDArray[np.int64],
) -> Lane:
    lane = Lane(record, levels, touched.size)
    lane.slots[:] = slots
    lane.touched[:] = touched
    lane.needs[:] = needs
    lane.queue[:] = queue
    return lane


@inlined
def slots_of(v: Any) -> Any:
    """(num_waiting_slots + num_running_slots,) int64."""
    return carray(pointer(v.slots_address), (v.num_waiting_slots + v.num_running_slots,), np.int64)


@inlined
def chunk_budgets_of(v: Any) -> Any:
    """(num_chunk_budgets,) int64 tokens."""
    return carray(pointer(v.levels_address), (v.num_chunk_budgets,), np.int64)


@inlined
def touched_of(v: Any) -> Any:
    """(touched_size,) int64 requests."""
    return carray(pointer(v.touched_address), (v.touched_size,), np.int64)


@inlined
def needs_of(v: Any) -> Any:
    """(num_waiting_slots,) int64 blocks."""
    return carray(pointer(v.needs_address), (v.num_waiting_slots,), np.int64)


@inlined
def scratch_ids(v: Any) -> Any:
    """(MOST_SLOTS + SPARE,) int64, scratch."""
    return carray(pointer(v.scratch_address), (MOST_SLOTS + SPARE,), np.int64)


@inlined
def scratch_keys(v: Any) -> Any:
    """(MOST_SLOTS + SPARE,) float64, scratch behind the other."""
    return carray(pointer(v.scratch_address + 8 * (MOST_SLOTS + SPARE)), (MOST_SLOTS + SPARE,), np.float64)


@inlined
def ranked_keys_of(v: Any) -> Any:
    """(num_waiting_slots + SPARE,) float64, the smallest queue keys, no two of them equal."""
    return carray(pointer(v.queue_address), (v.num_waiting_slots + SPARE,), np.float64)


@inlined
def ranked_of(v: Any) -> Any:
    """(num_waiting_slots + SPARE,) int64, the requests with those keys."""
    size = v.num_waiting_slots + SPARE
    return carray(pointer(v.queue_address + 8 * size), (size,), np.int64)


@inlined
def oldest_of(v: Any) -> Any:
    """(num_waiting_slots + SPARE,) int64, the waiting requests that arrived first."""
    size = v.num_waiting_slots + SPARE
    return carray(pointer(v.queue_address + 16 * size), (size,), np.int64)
