"""A small trace, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cli import main
from infermax_gym.cluster import Migration
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.evaluation import FleetContender, PrefillPool, warm_up, warming

NUM_REQUESTS = 30


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Everything is compiled, so that no command has a word to say about it."""
    router = ROUTERS["round-robin"]
    fleet = FleetContender(Policy("fcfs"), router, 2)
    apart = FleetContender(Policy("fcfs"), router, 2, prefill=PrefillPool(1, router))
    moving = FleetContender(Policy("fcfs"), router, 2, migration=Migration())
    in_python = FleetContender(Policy("fcfs"), warming._FirstReplica(), 2)
    for caching in (False, True):
        warm_up(
            [*QUICK.values(), warming._OldestFirst(), fleet, apart, moving, in_python],
            EngineConfig(prefix_caching=caching),
        )


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `infermax` with arguments, each turned into text, as into a pipe, whatever terminal this is."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace file in the project's own format that makes a cache of 1,000 tokens preempt."""
    path = tmp_path / "trace.csv"
    rows = [f"{0.1 * i:.1f},{17 + 13 * i % 300},{1 + 29 * i % 120}" for i in range(NUM_REQUESTS)]
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n" + "\n".join(rows) + "\n")
    return path
