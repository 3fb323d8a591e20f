"""The scoreboard: every rival and every shipped agent on held-out trace slices of all scenarios.

python -m experiments.board.scoreboard                              measures and prints the tables (some minutes)
python -m experiments.board.scoreboard --scenarios conv             only scenarios whose name contains "conv"
python -m experiments.board.scoreboard --out docs/board/scoreboard.md puts the tables between the marks of a page
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from experiments.board.board import BOUND, Array, Board, figures_of
from experiments.board.rivals import CLAIRVOYANT_POLICIES, DEFAULTS, Rivals, load_rivals
from experiments.board.scenarios import SCENARIOS, has_slos
from experiments.board.tables import page
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.cards import ZOO
from infermax_gym.agents.scenario import TEST, TraceSlice, trace_slices
from infermax_gym.agents.storage import load_agent, write_bytes
from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.in_time import most_in_time
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Policy

NUM_SLICES = 16
AGENTS = ("generalist", "knobs", "informed", "goodput", "conv-evolved", "reasoning-evolved", "mixed-evolved")
BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"


def shipped_agents() -> dict[str, Agent]:
    """The zoo's policies that run on the scoreboard."""
    return {name: load_agent(name) for name in AGENTS if (ZOO / f"{name}.safetensors").exists()}


def contenders_of(scenario: str, rivals: Rivals, agents: Mapping[str, Agent]) -> dict[str, Policy | Agent]:
    """Everybody who runs in a scenario, by name."""
    table = {name: POLICIES[name] for name in (*DEFAULTS, *CLAIRVOYANT_POLICIES)}
    own = {
        name: agent
        for name, agent in agents.items()
        if not name.endswith("-evolved") or scenario.startswith(name.split("-")[0])
    }
    return {**table, **rivals.policies_of(scenario), **{f"agent:{name}": agent for name, agent in own.items()}}


def _bound_of(trace_slice: TraceSlice) -> tuple[float, float, float, float, float]:
    """What no schedule does better, in the order of `FIGURES`; nothing is known of p99."""
    found = certify(trace_slice.workload, trace_slice.engine)
    in_time = most_in_time(trace_slice.workload, trace_slice.engine)
    goodput, share = in_time / found.makespan_s, in_time / len(trace_slice.workload)
    return found.mean_latency_s, np.nan, found.busy_s, goodput, share


def measure(
    scenarios: Sequence[str], rivals: Rivals, agents: Mapping[str, Agent], num_slices: int = NUM_SLICES
) -> Board:
    """Run everybody on the held-out trace slices of some scenarios."""

    def one(scenario: str) -> dict[str, Array]:
        held = trace_slices(SCENARIOS[scenario], num_slices, split=TEST)
        figures = {
            name: np.array([figures_of(w.serve(contender), has_slos(scenario)) for w in held])
            for name, contender in contenders_of(scenario, rivals, agents).items()
        }
        return {**figures, BOUND: np.array([_bound_of(w) for w in held])}

    with ThreadPoolExecutor(2) as pool:  # the engine releases the interpreter lock
        return Board(dict(zip(scenarios, pool.map(one, scenarios), strict=True)))


def main(arguments: list[str] | None = None) -> int:
    """Measure; print or write."""
    parser = argparse.ArgumentParser(description="Measure rivals and agents on held-out trace slices of all scenarios.")
    add = parser.add_argument
    add("--scenarios", "--cells", default="", metavar="TEXT", help="only scenarios whose name contains this")
    add("--slices", "--windows", type=int, default=NUM_SLICES, metavar="N", help="held-out trace slices of a scenario")
    add("--out", type=Path, metavar="PAGE.md", help="page whose tables are replaced; by default they are printed")
    options = parser.parse_args(arguments)
    scenarios = [name for name in SCENARIOS if options.scenarios in name]
    if not scenarios:
        parser.error(f"no scenario's name contains {options.scenarios!r}")
    before, after = "", ""
    if options.out is not None:
        before, begin, rest = (
            options.out.read_text(encoding="utf-8").partition(BEGIN) if options.out.is_file() else ("",) * 3
        )
        _, end, after = rest.partition(END)
        if not begin or not end:
            parser.error(f"{options.out} has no place for the tables: a line {BEGIN!r}, and after it {END!r}")
    text = page(measure(scenarios, load_rivals(), shipped_agents(), options.slices), options.slices)
    if options.out is None:
        print(text)
    else:
        write_bytes(options.out, f"{before}{BEGIN}\n\n{text}\n{END}{after}".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
