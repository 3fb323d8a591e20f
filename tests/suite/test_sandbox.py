"""Source in a process of its own: its schedule counts, its mistakes are a line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from infermax_gym.suite.sandbox import Limits
from infermax_gym.suite.search_task import score

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")

FIRST_COME = """
from infermax_gym.engine import Information
from infermax_gym.engine.batch_builder import BatchBuilder

class Scheduler:
    name, information = "first-come", Information.NONE

    def decide(self, view):
        builder = BatchBuilder(view)
        for r in view.running.request[:1].tolist() or view.waiting.request[:1].tolist():
            builder.serve(r) if r in view.running.request else builder.admit(r)
        print("a word that must not reach the answer")
        return builder.decision()
"""


def test_its_schedule_is_scored_by_the_engine() -> None:
    found = score(FIRST_COME, "toy", num_episodes=1)
    assert found["error"] is None
    assert found["score"] < 0.0  # one at a time
    assert found["objective"] > found["bound"]


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("while True: pass", "ended by signal"),
        ("x = b' ' * 2**40", "needs more memory"),
        ("raise ValueError('two\\nlines')", "raised ValueError: two lines"),
        ('import os; os.write(3, b\'{"decisions": [""]}\'); os._exit(0)', r"without an answer|cannot be read"),
    ],
)
def test_its_mistakes_are_a_line(source: str, hint: str) -> None:
    found = score(source, "toy", num_episodes=1, limits=Limits(cpu_s=2, wall_s=60.0))
    assert found["score"] == -float("inf")
    assert re.search(hint, found["error"])
    assert "\n" not in found["error"]


def test_what_it_may_write_is_limited(tmp_path: Path) -> None:
    place = tmp_path / "large"
    found = score(f"open({str(place)!r}, 'wb').write(b' ' * 2**25)", "toy", num_episodes=1)
    assert found["error"] is not None
    assert not place.exists() or place.stat().st_size <= 2**24
    assert score("x" * 200_000, "toy", num_episodes=1)["error"] == "the source has 200,000 characters; at most 100,000"
