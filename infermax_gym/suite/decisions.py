"""What a scheduler decided, packed into a short text: a schedule of an engine, or the replicas that a router chose.

A schedule is written as differences from step to step (who leaves the batch, whose tokens change), which decodes
repeat for free, as 16-bit numbers, deflated, in base64.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.plan import Plan, Step
from infermax_gym.suite.tasks import SuiteError

_MOST = 2**16 - 1
_MOST_BYTES = 2**20
"""Of a text once it is inflated, a hundred times what schedules of the tasks take."""


def pack_plan(plan: Plan) -> str:
    """A schedule as text.

    Raises:
        SuiteError: a request's number or its tokens do not fit 16 bits.
    """
    numbers: list[int] = []
    before: dict[int, int] = {}
    repeated = -1  # where the count of repetitions of the last step is
    for step in plan.steps:
        batch = dict(step.batch)
        gone = [r for r in before if r not in batch]
        changed = [(r, c) for r, c in batch.items() if before.get(r) != c]
        if repeated >= 0 and not (gone or changed or step.preempted) and numbers[repeated] < _MOST:
            numbers[repeated] += 1
            continue
        repeated = len(numbers)
        numbers += [1, len(step.preempted), len(gone), len(changed), *step.preempted, *gone]
        numbers += [n for pair in changed for n in pair]
        before = {r: batch[r] for r in (*(r for r in before if r in batch), *(r for r in batch if r not in before))}
    return _pack(numbers)


def unpack_plan(text: str, num_requests: int, most_steps: int) -> Plan:
    """The inverse of `pack_plan`.

    Args:
        text: a schedule.
        num_requests: of the episode.
        most_steps: that a schedule of it may have; its batches may have sixteen times as many entries in all.

    Raises:
        SuiteError: the text is no schedule, names a request that is not there, or is beyond all measure: a short text
            can hold one that fills the memory.
    """
    numbers = iter(_unpack(text))
    steps: list[Step] = []
    batch: dict[int, int] = {}
    entries = 0
    for times in numbers:
        num_preempted, num_gone, num_changed = _take(numbers, 3)
        preempted = tuple(_take(numbers, num_preempted))
        for r in _take(numbers, num_gone):
            batch.pop(r, None)
        changed = _take(numbers, 2 * num_changed)
        batch.update(zip(changed[::2], changed[1::2], strict=True))
        now = tuple(batch.items())
        entries += len(now)
        for r in (*changed[::2], *preempted):
            if r >= num_requests:
                raise SuiteError(f"decisions name request {r}; there are {num_requests}")
        if len(steps) + times > most_steps or entries > 16 * most_steps:
            raise SuiteError(
                f"decisions hold more than {most_steps:,} steps, or too large ones; no schedule needs that"
            )
        steps.append(Step(now, preempted))
        steps += [Step(now)] * (times - 1)
    return Plan(tuple(steps))


def pack_choices(choices: Sequence[int]) -> str:
    """The replicas that a router chose, as text."""
    return _pack(choices)


def unpack_choices(text: str) -> list[int]:
    """The inverse of `pack_choices`.

    Raises:
        SuiteError: the text is none.
    """
    return _unpack(text)


def _pack(numbers: Iterable[int]) -> str:
    array: NDArray[np.int64] = np.fromiter(numbers, np.int64)
    if array.size and not 0 <= array.min() <= array.max() <= _MOST:
        raise SuiteError(f"a decision has a number outside 0..{_MOST}")
    return base64.b64encode(zlib.compress(array.astype("<u2").tobytes(), 9)).decode("ascii")


def _unpack(text: str) -> list[int]:
    try:
        packed = base64.b64decode(text, validate=True)
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, _MOST_BYTES)
        sound = inflater.eof and not inflater.unused_data and len(data) % 2 == 0
    except (ValueError, binascii.Error, zlib.error):
        sound = False
    if not sound:
        raise SuiteError("decisions cannot be read; expected base64 of deflated 16-bit numbers, 1 MiB at most")
    numbers: list[int] = np.frombuffer(data, "<u2").tolist()
    return numbers


def _take(numbers: Iterator[int], count: int) -> list[int]:
    taken = [n for _, n in zip(range(count), numbers, strict=False)]
    if len(taken) != count:
        raise SuiteError("decisions end in the middle of a step")
    return taken
