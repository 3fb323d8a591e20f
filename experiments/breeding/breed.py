"""Breeding one linear controller over many scenarios at once.

    python -m experiments.breeding.breed knobs --out agents/zoo

A candidate plays the training trace slices of its scenarios; `experiments.breeding.tasks` says what its loss is.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.board.rivals import Rivals, load_rivals
from experiments.breeding.breeds import BREEDS, Breed
from experiments.breeding.controller_search import ControllerSearch, Report
from experiments.breeding.tasks import training_tasks
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.controller import Controller
from infermax_gym.agents.evolution import SearchResult
from infermax_gym.agents.storage import load_agent, save_agent


def breed(
    plan: Breed,
    rivals: Rivals,
    *,
    seed: int = 0,
    start: Controller | None = None,
    report: Report = print,
) -> tuple[Controller, SearchResult]:
    """Search a controller: the constants first, then every weight.

    Args:
        plan: what to make.
        rivals: whom to measure against.
        seed: of the search and of the training trace slices.
        start: where to begin, with all weights at once; else with the constants, at a global setting of the family.
        report: gets a line now and then.
    """
    search = ControllerSearch(plan, training_tasks(plan, rivals, seed))
    if start is None:
        whole = search.search_constants(search.start(rivals), seed, report=report).mean
        report(f"constants: {search.whole_loss(whole):+.4f} on all trace slices")
    else:
        whole = search.vector(start)
        report(f"start: {search.whole_loss(whole):+.4f} on all trace slices")
    found = search.search_all(whole, seed + 1, report)
    loss = search.whole_loss(found.mean)
    report(f"all weights: {loss:+.4f} on all trace slices")
    return search.controller(found.mean), replace(found, best=found.mean, loss=loss)


def main(arguments: list[str] | None = None) -> int:
    """Make a shipped controller again."""
    parser = argparse.ArgumentParser(description="Breed a controller of the zoo.")
    parser.add_argument("name", choices=list(BREEDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generations", type=int, nargs=2, help="of the constant weights alone, then of all")
    parser.add_argument("--out", type=Path, default=Path("runs/bred"), metavar="DIR", help="gets NAME.safetensors")
    parser.add_argument("--start", metavar="PATH", help="a controller to begin at, with all weights at once")
    options = parser.parse_args(arguments)
    plan = BREEDS[options.name]
    if options.generations:
        plan = replace(plan, generations=tuple(options.generations))
    begun = load_agent(options.start) if options.start else None
    controller, found = breed(
        plan,
        load_rivals(),
        seed=options.seed,
        start=None if begun is None else begun.controller,
        report=lambda line: print(line, file=sys.stderr),
    )
    first, second = plan.generations
    command = (
        f"python -m experiments.breeding.breed {options.name} --seed {options.seed} --generations {first} {second}"
    )
    training: dict[str, Any] = {"algo": "cma-es", "command": command, "seed": options.seed, "loss": found.loss}
    training["num_evaluations"] = found.num_evaluations
    if begun is not None:
        training["command"] = f"{command} --start {options.name}"
        training["began_at"] = begun.card.get("training")
    agent = Agent(options.name, controller=controller, card={"note": plan.note, "training": training})
    options.out.mkdir(parents=True, exist_ok=True)
    save_agent(options.out / f"{options.name}.safetensors", agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
