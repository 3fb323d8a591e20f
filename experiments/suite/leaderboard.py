"""LEADERBOARD.md from certified results: `python -m experiments.suite.leaderboard`.

Every file in leaderboard/ is certified; agents of this repository play again. `--check` compares the page and
certifies nothing, which takes a second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infermax_gym.agents.cards import SUFFIX, ZOO
from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.catalogue import SCHEDULERS
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.suite.board import read_folder, render
from infermax_gym.suite.play import SuiteAgent, random_agent
from infermax_gym.suite.result import fingerprint
from infermax_gym.suite.verify import verify

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "leaderboard"
PAGE = ROOT / "LEADERBOARD.md"


def of_this_repository(document: Mapping[str, Any]) -> dict[str, SuiteAgent] | None:
    """The agent of a result by its SHA-256, if it is one of ours and still the same."""
    name = str(document["agent"])
    file = ZOO / f"{name}{SUFFIX}"
    agent: SuiteAgent | None = ROUTERS.get(name)
    if name == "random":
        agent = random_agent()
    elif agent is None and file.is_file():
        agent = load_agent(file)
    elif agent is None and name in SCHEDULERS:
        agent = SCHEDULERS[name]
    if agent is None:
        return None
    digest = fingerprint(agent, file if file.is_file() else None)
    return {digest: agent} if document["runs"] == [digest] else None


def page() -> str:
    """LEADERBOARD.md as the files of the folder have it."""
    documents = read_folder(FOLDER)
    return render(documents, [d["agent"] for d in documents.values() if of_this_repository(d) is not None])


def main() -> int:
    """Certify and write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        current = PAGE.read_text(encoding="utf-8") == page()
        print("LEADERBOARD.md is up to date" if current else "LEADERBOARD.md is not what leaderboard/ gives")
        return 0 if current else 1
    for name, document in read_folder(FOLDER).items():
        print(f"certifying {name}", file=sys.stderr, flush=True)
        verify(FOLDER / name, runs=of_this_repository(document))
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
