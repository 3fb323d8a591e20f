"""LEADERBOARD.md from certified results: `python -m experiments.suite.leaderboard`.

Every file in leaderboard/ is certified. Agents of this repository play again, and so do those of leaderboard/NAME/, the
training runs of the agent NAME. `--check` compares the page and certifies nothing, which takes a second.
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


def at_hand(document: Mapping[str, Any]) -> dict[str, SuiteAgent] | None:
    """The agents of a result by their SHA-256, if all are here and still the same."""
    name = str(document["agent"])
    found: dict[str, SuiteAgent] = {}
    for file in sorted((FOLDER / name).glob(f"*{SUFFIX}")) if Path(name).name == name else ():
        agent = load_agent(file)
        found[fingerprint(agent, file)] = agent
    if not found:
        shipped, place = _shipped(name)
        found = {} if shipped is None else {fingerprint(shipped, place): shipped}
    return {digest: found[digest] for digest in document["runs"]} if found.keys() == set(document["runs"]) else None


def _shipped(name: str) -> tuple[SuiteAgent | None, Path | None]:
    """An agent of this repository, and the file that it is."""
    file = ZOO / f"{name}{SUFFIX}"
    if name == "random":
        return random_agent(), None
    if name in ROUTERS:
        return ROUTERS[name], None
    if file.is_file():
        return load_agent(file), file
    return SCHEDULERS.get(name), None


def page() -> str:
    """LEADERBOARD.md as the files of the folder have it."""
    documents = read_folder(FOLDER)
    return render(documents, [d["agent"] for d in documents.values() if at_hand(d) is not None])


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
        verify(FOLDER / name, runs=at_hand(document))
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
