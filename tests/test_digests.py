"""Every schedule is what it was: see `tests.digests`."""

from __future__ import annotations

import json

import pytest

from tests.digests import DIGESTS, FILE, everything

KEPT = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("kind", "name"), list(everything()))
def test_schedules_are_as_they_were(kind: str, name: str) -> None:
    assert name in KEPT[kind], f"{name} is new: `python -m tests.digests` takes its digests"
    assert DIGESTS[kind][0](name) == KEPT[kind][name]


def test_nothing_is_missing() -> None:
    assert {(kind, name) for kind, names in KEPT.items() for name in names} == set(everything())
