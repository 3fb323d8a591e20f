"""How continuous integration takes `make test-vllm`: what is not the code's fault is a line, a failing test fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAKE = """#!/bin/sh
for word in "$@"; do target="$word"; done
echo "$target in $INFERMAX_VLLM_HOME, short: $INFERMAX_VLLM_SHORT"
case "$target" in
  vllm-environment) echo "no route to the index"; exit $FAKE_ENVIRONMENT ;;
  test-vllm) exit $FAKE_TESTS ;;
esac
"""


@pytest.mark.parametrize(
    ("environment", "tests", "code", "says"),
    [
        (0, 0, 0, ""),
        (2, 0, 0, "the plug-in was not tried inside vLLM: no environment within 7 minutes (no route to the index)\n"),
        (
            124,
            0,
            0,
            "the plug-in was not tried inside vLLM: no environment within 7 minutes (no route to the index)\n",
        ),
        (0, 2, 2, ""),
        (0, 124, 0, "the plug-in was not tried inside vLLM: the checks did not end within 7 minutes\n"),
    ],
)
def test_what_fails_and_what_is_left_out(environment: int, tests: int, code: int, says: str, tmp_path: Path) -> None:
    fake = tmp_path / "make"
    fake.write_text(MAKE)
    fake.chmod(0o755)
    given = {name: value for name, value in os.environ.items() if name not in ("HOME", "INFERMAX_VLLM_HOME")}
    given |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FAKE_ENVIRONMENT": str(environment)}
    given |= {"FAKE_TESTS": str(tests), "HOME": str(tmp_path)}
    command = [str(ROOT / "scripts" / "vllm_ci.sh")]
    done = subprocess.run(command, cwd=tmp_path, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, says)
    ran = f"test-vllm in {tmp_path}/.cache/infermax-gym/vllm, short: 1\n"
    assert done.stdout == (ran if environment == 0 else "")
