"""The study that replays logs: where its sections go, and what it says of Splitwise's measurements."""

from __future__ import annotations

from experiments.studies.replay_logs import splitwise_section
from tests.shared import SHARED, needs_shared


@needs_shared
def test_splitwise() -> None:
    assert SHARED is not None
    section = splitwise_section(SHARED / "data")
    assert "| 512 | 64 |" in section and "| 8,192 | 1 |" in section
    # llama3-70b-a100x4 says 80 x (0.159 + 512 x 0.002 + 0.2112 + ...) ms of a prompt of 512 tokens.
    assert "| 512 | 1 | 0.127 s | 0.113 s | -11.4% |" in section
