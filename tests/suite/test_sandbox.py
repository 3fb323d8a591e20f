"""Source in a process of its own: its schedule counts, its mistakes are a line."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from infermax_gym.suite.sandbox import Limits, _maker
from infermax_gym.suite.search_task import score
from infermax_gym.suite.source import MODULES
from infermax_gym.suite.tasks import SuiteError

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
        ('import os; os.write(3, b\'{"error": "a\\\\u001b[2J"}\'); raise SystemExit', r"^a \[2J$|without an answer"),
        (
            "from infermax_gym.baselines.policies import POLICIES\n"
            "class Scheduler:\n def __new__(cls): return POLICIES['srpt-oracle']",
            "serve nothing by itself",
        ),
    ],
)
def test_its_mistakes_are_a_line(source: str, hint: str) -> None:
    modules = (*MODULES, "os", "infermax_gym.baselines.policies")
    limits = Limits(cpu_s=2, wall_s=60.0, modules=modules)
    found = score(source, "toy", num_episodes=1, limits=limits)
    assert found["score"] == -float("inf")
    assert re.search(hint, found["error"])
    assert "\n" not in found["error"]


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    place = tmp_path / "beat"
    source = f"""
import os, time
if os.fork() == 0:
    while True:
        open({str(place)!r}, "w").write(str(os.getpid()))
        time.sleep(0.01)
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infermax_gym.suite.sandbox.check_source", lambda *_: None)
        score(source, "toy", num_episodes=1)
    child = int(place.read_text() or 0)
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.kill(child, 0)
            if Path(f"/proc/{child}/stat").exists() and ") Z " in Path(f"/proc/{child}/stat").read_text():
                raise ProcessLookupError  # ended, and not yet collected
            time.sleep(0.01)


KNOWS_ALL = """
class Scheduler:
    name, information = "sees-all", None

    def play(self, workload, engine, **_):
        return workload.num_output_tokens

    def decide(self, view):
        return view
"""


def test_a_scheduler_that_serves_by_itself_is_refused() -> None:
    with pytest.raises(SuiteError, match="serve nothing by itself"):
        _maker(KNOWS_ALL)()


def test_what_it_may_write_is_limited(tmp_path: Path) -> None:
    place = tmp_path / "large"
    source = f"open({str(place)!r}, 'wb').write(b' ' * 2**25)"
    assert "uses open in line 1" in str(score(source, "toy", num_episodes=1)["error"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infermax_gym.suite.sandbox.check_source", lambda *_: None)
        assert score(source, "toy", num_episodes=1)["error"] is not None
    assert not place.exists() or place.stat().st_size <= 2**24
    assert score("x" * 200_000, "toy", num_episodes=1)["error"] == "the source has 200,000 characters; at most 100,000"
