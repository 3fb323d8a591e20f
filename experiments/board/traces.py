"""Shipped agents beside the rules on trace slices of a real trace, on which nothing was trained or tuned.

    python -m experiments.board.traces TRACE.csv --kv-tokens 20000 --time-scale 1.45

cuts a trace into trace slices that follow one another, and prints one table for docs/board/traces.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from experiments.board.board import FIGURES, Board, figures_of, ratio
from experiments.board.rivals import DEFAULTS, Rivals, load_rivals
from experiments.board.scoreboard import shipped_agents
from experiments.board.tables import label, short, table
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Information, Policy
from infermax_gym.workload import Workload, WorkloadError, load_workload

NETWORKS = ("conv-ppo",)
"""Networks of the zoo: each was trained for one scenario, so the scoreboard of all scenarios leaves them out."""


def cut(trace: Workload, engine: EngineConfig, num_requests: int, time_scale: float) -> list[TraceSlice]:
    """Trace slices of a trace, one after another; what is left at its end is not played."""
    starts = range(0, len(trace) - num_requests + 1, num_requests)
    parts = [trace.trace_slice(start, num_requests).scaled(time_scale) for start in starts]
    return [TraceSlice(part, engine, np.zeros(num_requests)) for part in parts]


def contenders(rivals: Rivals) -> dict[str, Policy | Agent]:
    """Whoever knows no output lengths: policies as people run them, the family tuned once, shipped agents."""
    table = {name: POLICIES[name] for name in DEFAULTS}
    overall = rivals.policies_everywhere()
    shipped = {**shipped_agents(), **{name: load_agent(name) for name in NETWORKS}}
    agents = {f"agent:{n}": a for n, a in shipped.items() if a.information == Information.NONE}
    return {**table, **overall, **agents}


def measure(held: Sequence[TraceSlice], players: dict[str, Policy | Agent]) -> Board:
    """Everybody on every trace slice."""

    def one(name: str) -> np.ndarray:
        return np.array([figures_of(trace_slice.serve(players[name]), False) for trace_slice in held])

    with ThreadPoolExecutor(2) as pool:
        return Board({"trace": dict(zip(players, pool.map(one, players), strict=True))})


def page(board: Board) -> str:
    """One policy for everybody, the lowest mean latency first."""
    names = sorted(board.figures["trace"], key=lambda name: board.mean("trace", name, "mean"))
    rows = []
    for name in names:
        against = [short(ratio(board.log_ratios(["trace"], name, rival, "mean"))) for rival in ("sarathi", "global")]
        tail = short(ratio(board.log_ratios(["trace"], name, "global", "p99")))
        figures = [f"{board.mean('trace', name, figure):.2f}" for figure in FIGURES[:2]]
        rows.append((label(name), *figures, *against, tail))
    header = ("policy", "mean E2E, s", "p99 E2E, s", "mean / sarathi", "mean / global", "p99 / global")
    return table(header, rows)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Shipped agents beside the rules on trace slices of a real trace.")
    parser.add_argument("trace")
    parser.add_argument("--requests", type=int, default=1500, help="of a trace slice")
    parser.add_argument("--kv-tokens", type=int, default=20_000)
    parser.add_argument("--time-scale", type=float, default=1.0, help="factor on arrival times")
    parser.add_argument("--cost", choices=list(COSTS), default="llama2-7b-a100")
    options = parser.parse_args(arguments)
    engine = EngineConfig(cost=COSTS[options.cost], num_kv_tokens=options.kv_tokens, max_num_batched_tokens=512)
    try:
        held = cut(load_workload(options.trace), engine, options.requests, options.time_scale)
    except (WorkloadError, ValueError) as error:
        print(f"traces: error: {error}", file=sys.stderr)
        return 2
    if not held:
        print(f"traces: error: {options.trace} holds no {options.requests} requests", file=sys.stderr)
        return 2
    board = measure(held, contenders(load_rivals()))
    print(f"{len(held)} trace slices of {options.requests} requests\n")
    print(page(board))
    return 0


if __name__ == "__main__":
    sys.exit(main())
