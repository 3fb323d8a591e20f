"""Packed decisions come back as they were, and garbage is refused."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermax_gym.baselines.optimum.plan import Plan, Step
from infermax_gym.suite.decisions import pack_choices, pack_plan, unpack_choices, unpack_plan
from infermax_gym.suite.tasks import SuiteError

_REQUEST = st.integers(0, 30)
_STEPS = st.builds(
    lambda batch, preempted: Step(tuple(batch.items()), tuple(preempted)),
    st.dictionaries(_REQUEST, st.integers(1, 5), max_size=5),
    st.lists(_REQUEST, max_size=3, unique=True),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(_STEPS, st.integers(1, 3)), max_size=12))
def test_a_plan_comes_back(parts: list[tuple[Step, int]]) -> None:
    steps = [step for step, times in parts for _ in range(times)]
    back = unpack_plan(pack_plan(Plan(tuple(steps))), 31, 100).steps
    assert [(dict(s.batch), s.preempted) for s in back] == [(dict(s.batch), s.preempted) for s in steps]


def test_repeated_decodes_are_nearly_free() -> None:
    step = Step(tuple((r, 1) for r in range(50)))
    short, long = (len(pack_plan(Plan((step,) * count))) for count in (2, 5_000))
    assert long <= short + 4


def test_choices_come_back() -> None:
    assert unpack_choices(pack_choices([0, 3, 1, 3])) == [0, 3, 1, 3]


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("%%%", "cannot be read"),
        ("é", "cannot be read"),
        (base64.b64encode(b"plain").decode(), "cannot be read"),
        (_packed(b"\x01"), "cannot be read"),
        (_packed(b"\x00" * 2**25), "1 MiB at most"),  # a small text that inflates to a giant
        (_packed(b"\x01\x00\x05\x00"), "end in the middle of a step"),
        (_packed(b"\xff\xff\x00\x00\x00\x00\x00\x00" * 100), "more than 1,000 steps"),
        (_packed(np.array([1, 0, 0, 1, 7, 1], "<u2").tobytes()), "name request 7; there are 4"),
        (_packed(np.array([1, 1, 0, 0, 5], "<u2").tobytes()), "name request 5; there are 4"),
    ],
)
def test_garbage_is_refused(text: str, hint: str) -> None:
    with pytest.raises(SuiteError, match=hint):
        unpack_plan(text, 4, 1_000)


def test_a_short_text_does_not_fill_the_memory() -> None:
    """Every step here names one request anew, and so repeats the whole batch: 60,000 steps of 60,000 entries."""
    everybody = [1, 0, 0, 60_000, *(n for r in range(60_000) for n in (r, 1))]
    text = _packed(np.array(everybody + [1, 0, 0, 1, 0, 2, 1, 0, 0, 1, 0, 1] * 30_000, "<u2").tobytes())
    assert len(text) < 200_000
    with pytest.raises(SuiteError, match="too large ones"):
        unpack_plan(text, 2**16, 100_000)


def test_numbers_beyond_16_bits_are_refused() -> None:
    with pytest.raises(SuiteError, match=r"outside 0\.\.65535"):
        pack_plan(Plan((Step(((0, 70_000),)),)))
