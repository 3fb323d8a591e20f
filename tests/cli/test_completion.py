"""What a shell completes, and where its answer goes."""

from __future__ import annotations

import os
import subprocess
import sys


def test_commands_are_completed() -> None:
    environment = {
        **os.environ,
        "_INFERMAX_COMPLETE": "complete_bash",
        "COMP_WORDS": "infermax swee",
        "COMP_CWORD": "1",
    }
    code = "import sys; from infermax_gym.cli import main; sys.exit(main())"
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, ["sweep"], "")
