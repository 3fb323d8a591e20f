"""`infermax watch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from infermax_gym.cli import keys
from tests.cli.conftest import Command


def test_prints_the_last_view_into_a_pipe(command: Command, trace: Path) -> None:
    options = ("--workload", trace, "--kv-tokens", 1000, "--policies", "vllm,srf")
    outcome = command("watch", *options)
    assert outcome.code == 0 and outcome.out.count("30 of 30") == 2 and "vllm" in outcome.out
    shares = command("watch", "--workload", trace, "--policies", "spf-share")
    assert shares.code == 0 and "30 of 30" in shares.out and "spf-share" in shares.out
    early = command("watch", *options, "--until", 1)
    assert early.code == 0 and early.out.count(" of 30") == 2 and "30 of 30" not in early.out


def test_bad_input_gets_one_line(command: Command, trace: Path) -> None:
    for policies, words in (("a", "unknown policy"), ("sglang-fcfs", "code of its own"), ("", "one to 4 policies")):
        outcome = command("watch", "--workload", trace, "--policies", policies)
        assert outcome.code == 2 and words in outcome.err and len(outcome.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_keys_are_read_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        with keys.pressed() as next_key:
            assert next_key() == ""
            os.write(ours, b"+")
            assert next_key() == "+"
            os.write(ours, keys.RIGHT.encode())
            assert next_key() == keys.RIGHT
    os.close(ours)
