"""Specialists and the gate between them: `python -m agents.specialists NAME` makes `zoo/NAME.safetensors` again.

One linear controller cannot be right everywhere: what is best for long contexts on a small model is wrong for rollouts
on a large one. So each kind of traffic, memory and model gets a specialist of its own, bred on its loads only. Then
every specialist plays every cell, which says what it costs to have the wrong one in charge; and the gate, a small
network over what a controller sees while it runs, learns to choose such that this cost is small (cost-sensitive
classification). Nobody tells the gate which cell it is in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.agent import Agent, AgentError
from agents.breed import BREEDS, Breed, Course, Nursery, Report, courses, excess
from agents.cells import Window
from agents.controller import Controller, Gate, weights_from_action
from agents.controller_kernel import CONTROLLER_KNOBS, NUM_FEATURES, NUM_KNOBS
from agents.evolution import Vector
from agents.grid import GRID, LOADS, MEMORIES, MODELS, TRAFFICS
from agents.objectives import Objective
from agents.rivals import Rivals, load_rivals
from agents.storage import ZOO, save_agent, write_bytes
from infermax_gym.streams import stream

Array = NDArray[np.float64]

LOAD_FEATURES = ("backlog", "long_wait", "free_blocks", "decode_context", "arrivals_share", "preemption_rate")
"""What a specialist looks at: how loaded the engine is. What traffic and engine it has, it need not ask."""

_HIDDEN = 32
_MOST_COST = 0.5
"""Costs are cut there: how terrible the wrong specialist would be says nothing more about which one is right."""

_TYPICAL_COST = 0.02
_PER_WINDOW = 40
_ROUNDS = 5
_GATE_WINDOWS = 8
_ATTEMPTS = 2
_GOOD_ENOUGH = 0.01


@dataclass(frozen=True)
class School:
    """How to make a gated controller.

    Attributes:
        note: what it is, one line.
        breed: how a specialist is bred: objective, rival, knobs, features, what it is told.
    """

    note: str
    breed: Breed


SCHOOLS: dict[str, School] = {
    "generalist": School(
        "specialists for traffic, memory and model behind one gate; knows no lengths",
        replace(
            BREEDS["generalist"],
            objective=Objective(mean_latency=1.0, p99_latency=0.5, busy=0.5),
            features=LOAD_FEATURES,
            hinge=3.0,
            stride=1,
            generations=(60, 40),
            population=14,
            num_windows=16,
            windows_at_once=4,
        ),
    ),
    "informed": School(
        "specialists that are told classes and noisy lengths, behind one gate; for mixed and reasoning traffic",
        replace(
            BREEDS["informed"],
            features=LOAD_FEATURES,
            generations=(40, 20),
            population=14,
            num_windows=12,
            windows_at_once=4,
        ),
    ),
    "goodput": School(
        "specialists for requests within their limits on first token and time per token, behind one gate",
        replace(
            BREEDS["goodput"],
            features=(*LOAD_FEATURES, "late_share"),
            hinge=1.0,
            stride=1,
            generations=(40, 20),
            population=14,
            num_windows=8,
            windows_at_once=2,
        ),
    ),
}


def groups_of(plan: Breed) -> list[str]:
    """Names of the specialists, such as "conv-tight-7b": the kinds of cells that a breed plays."""
    kinds = product(TRAFFICS, MEMORIES, MODELS)
    return ["-".join(k) for k in kinds if plan.cells("-".join((k[0], k[1], next(iter(LOADS)), k[2])))]


def in_group(group: str) -> Callable[[str], bool]:
    """Whether a cell, by name, belongs to a group."""
    traffic, memory, model = group.split("-")
    return lambda name: name.startswith(f"{traffic}-{memory}-") and name.endswith(f"-{model}")


def starts_of(plan: Breed, group: str, rivals: Rivals) -> list[Vector]:
    """Constants where the search of a specialist may begin.

    They are the settings of the family for all cells and for its own, each as it is and with pushing out.
    """
    key = {"goodput": "goodput", "informed": "informed"}.get(plan.rival, "mean")
    actions = [np.array(rivals.overall["mean"]), np.array(rivals.overall["blend"])]
    for name in filter(in_group(group), GRID):
        actions += [
            np.array(rivals.per_cell[k][name])
            for k in dict.fromkeys((key, "mean"))
            if name in rivals.per_cell.get(k, {})
        ]
    rows = [CONTROLLER_KNOBS.index(name) for name in plan.knobs]
    found = []
    for action in actions:
        for margin in (-0.5, 0.5):
            whole = weights_from_action(action[:11])[:, 0]
            whole[CONTROLLER_KNOBS.index("push_out")] = margin
            if len(action) > 11:
                whole[CONTROLLER_KNOBS.index("class_ttft")] = action[11]
            found.append(np.asarray(whole[rows]))
    return found


def breed_specialist(plan: Breed, group: str, rivals: Rivals, seed: int, attempt: int = 0) -> tuple[Controller, float]:
    """One specialist and its mean excess over the rival on its training windows, the same ones at every attempt.

    The constants are searched from the best start with and from the best without pushing out; from the better of
    both, all weights.
    """
    own = replace(plan, cells=in_group(group))
    nursery = Nursery(own, courses(own, rivals, seed))

    place = plan.knobs.index("push_out") if "push_out" in plan.knobs else None
    ranked = sorted(starts_of(plan, group, rivals), key=nursery.whole_loss)
    chosen = ranked[:1] if place is None else _one_of_each(ranked, place)
    search_seed = seed + 10 * attempt
    constants = []
    for start in chosen:
        found = nursery.search_constants(start, search_seed, spread=0.15)
        constants += [found.mean, found.best, start]
    best = min(constants, key=nursery.whole_loss)
    found = nursery.search_all(best, search_seed + 1)
    best = min((found.mean, found.best, best), key=nursery.whole_loss)
    return nursery.controller(best), nursery.whole_loss(best)


def _one_of_each(ranked: Sequence[Vector], place: int) -> list[Vector]:
    """The best start on either side of zero."""
    return [next(start for start in ranked if (start[place] > 0.0) == side) for side in (False, True)]


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the gate learns from.

    Attributes:
        features: (rows, features) what a controller saw.
        costs: (rows, specialists) mean excess of each specialist in that cell.
        weights: (rows,) such that all cells count alike.
    """

    features: Array
    costs: Array
    weights: Array


def costs_of(plan: Breed, schooling: Sequence[Course], specialists: Sequence[Controller]) -> Array:
    """(courses, specialists) mean excess over the rival."""

    def one(job: tuple[Course, Controller]) -> float:
        course, controller = job
        results = []
        for window in course.windows:
            told = None if plan.sigma is None else window.predicted(plan.sigma)
            results.append(controller.play(window.workload, window.engine, predicted=told))
        return excess(results, course.rival, plan)

    with ThreadPoolExecutor(2) as pool:
        losses = list(pool.map(one, product(schooling, specialists)))
    return np.array(losses).reshape(len(schooling), len(specialists))


def lessons(
    plan: Breed, schooling: Sequence[Course], players: Sequence[Controller], costs: Array, rng: np.random.Generator
) -> Lessons:
    """What players (one for each course) see there, with what each specialist costs there."""
    features, rows, weights = [], [], []
    for i, (course, player) in enumerate(zip(schooling, players, strict=True)):
        seen = [s for window in course.windows for s in _seen(plan, player, window, rng)]
        features += seen
        rows += [i] * len(seen)
        weights += [1.0 / len(seen)] * len(seen)
    best = costs.min(axis=1, keepdims=True)
    return Lessons(np.array(features), np.minimum(costs - best, _MOST_COST)[rows], np.array(weights))


def _seen(plan: Breed, player: Controller, window: Window, rng: np.random.Generator) -> list[Array]:
    told = None if plan.sigma is None else window.predicted(plan.sigma)
    settings = player.settings(window.workload, window.engine, predicted=told)
    # Half of them from the beginning: what is done before anything is known lasts, and is soon over.
    early = list(range(min(_PER_WINDOW // 2, len(settings))))
    places = early + (len(early) + rng.permutation(len(settings) - len(early))[: _PER_WINDOW // 2]).tolist()
    return [settings[i].features.copy() for i in places]


def learn_gate(some: Sequence[Lessons], seed: int, num_steps: int = 1_500) -> Gate:
    """The gate whose choices cost least, in expectation over its own probabilities.

    It begins with the specialists that are right or nearly so as labels, then minimises the cost itself. It learns on
    standardised features; their means and deviations go into its weights in the end.
    """
    import torch

    features = np.concatenate([s.features for s in some])
    weights = np.concatenate([s.weights for s in some])
    weights /= weights.sum()
    centre = weights @ features
    spread = np.maximum(np.sqrt(weights @ (features - centre) ** 2), 0.02)
    centre[0], spread[0] = 0.0, 1.0
    generator = torch.Generator().manual_seed(int(stream(seed, "policy").integers(2**31)))
    seen, costs, counts = (
        torch.from_numpy(array.astype(np.float32))
        for array in ((features - centre) / spread, np.concatenate([s.costs for s in some]), weights)
    )
    inner = torch.randn(_HIDDEN, NUM_FEATURES, generator=generator) * NUM_FEATURES**-0.5
    outer = torch.zeros(costs.shape[1], _HIDDEN + 1)
    optimiser = torch.optim.Adam([inner.requires_grad_(), outer.requires_grad_()], lr=0.02)
    wanted = torch.softmax(-costs / _TYPICAL_COST, dim=1)
    for step in range(num_steps):
        done = step / num_steps
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1.0 - done) + 1e-4
        scores = torch.tanh(seen @ inner.T) @ outer[:, :-1].T + outer[:, -1]
        log_chances = torch.log_softmax(scores, dim=1)
        missed = -(wanted * log_chances).sum(1)
        if done > 0.5:  # by now the chances are about right: what they cost is what counts
            missed = 0.2 * missed + (log_chances.exp() * costs).sum(1) / _TYPICAL_COST
        loss = (counts * missed).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    scaled = inner.detach().numpy().astype(np.float64) / spread
    scaled[:, 0] -= scaled[:, 1:] @ centre[1:]
    return Gate(*(part.astype(np.float32).astype(np.float64) for part in (scaled, outer.detach().numpy())))


def gated(plan: Breed, specialists: Sequence[Controller], gate: Gate) -> Controller:
    """The controller of some specialists and a gate."""
    weights = np.stack([s.weights for s in specialists])
    return replace(specialists[0], weights=weights, gate=gate)


def teach(
    plan: Breed, specialists: Mapping[str, Controller], rivals: Rivals, seed: int, report: Report
) -> tuple[Controller, Array]:
    """The gate: learned on what the right specialists see, then also on what the gated controller itself sees.

    Returns:
        The controller of the best round, and its mean excess in every course.
    """
    rng = stream(seed, "exploration")
    schooling = courses(plan, rivals, seed)
    controllers = list(specialists.values())
    costs = costs_of(plan, schooling, controllers)
    report(f"the right specialist everywhere: {costs.min(axis=1).mean():+.4f}")
    some = [lessons(plan, schooling, [controllers[i] for i in costs.argmin(axis=1)], costs, rng)]
    best: tuple[Controller, Array] | None = None
    for attempt in range(_ROUNDS):
        controller = gated(plan, controllers, learn_gate(some, seed + attempt))
        reached = costs_of(plan, schooling, [controller])[:, 0]
        report(f"behind the gate, round {attempt}: {reached.mean():+.4f}, worst {reached.max():+.4f}")
        if best is None or reached.mean() < best[1].mean():
            best = controller, reached
        if attempt + 1 < _ROUNDS:
            some.append(lessons(plan, schooling, [controller] * len(schooling), costs, rng))
    assert best is not None
    return best


def attend(
    plan: Breed, rivals: Rivals, seed: int, folder: Path | None, report: Report
) -> tuple[dict[str, Controller], dict[str, float]]:
    """All specialists and their losses.

    One that is hardly better than its rival is bred again with other seeds, `_ATTEMPTS` times in all, and the best is
    kept. What a folder holds already is taken from there.

    Raises:
        AgentError: the folder holds specialists of another seed, school or number of generations.
    """
    found: dict[str, Controller] = {}
    losses: dict[str, float] = {}
    for group in groups_of(plan):
        file = None if folder is None else folder / f"{group}.json"
        attempts = 0
        bred = {"seed": seed, "generations": list(plan.generations), "note": plan.note}
        if file is not None and file.exists():
            record = json.loads(file.read_text())
            if any(record.get(name) != value for name, value in bred.items()):
                raise AgentError(f"{file}: was bred with another seed, generations or school; take another folder")
            attempts, losses[group] = record["attempts"], record["loss"]
            weights = np.array(record["weights"]).reshape(NUM_KNOBS, NUM_FEATURES)
            found[group] = _told_as(plan, weights)
        while attempts == 0 or (attempts < _ATTEMPTS and losses[group] > _GOOD_ENOUGH):
            other, loss = breed_specialist(plan, group, rivals, seed, attempts)
            attempts += 1
            report(f"{group}: {loss:+.4f}")
            if loss < losses.get(group, np.inf):
                found[group], losses[group] = other, loss
            if file is not None:
                weights = found[group].weights
                record = {"loss": losses[group], "attempts": attempts, "weights": weights.ravel().tolist(), **bred}
                write_bytes(file, json.dumps(record).encode())
    return found, losses


def _told_as(plan: Breed, weights: Array) -> Controller:
    """A specialist of a breed."""
    return Controller(
        weights, interval_s=plan.interval_s, believes=plan.believes, classes=plan.classes, sigma=plan.sigma
    )


def main(arguments: list[str] | None = None) -> int:
    """Make a gated controller again."""
    parser = argparse.ArgumentParser(description="Breed specialists and teach a gate.")
    parser.add_argument("name", choices=list(SCHOOLS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--generations", type=int, nargs=2, help="of a specialist: of the constants, then of all weights"
    )
    parser.add_argument("--folder", type=Path, help="keeps finished specialists, so that an interrupted run goes on")
    parser.add_argument("--out", default=str(ZOO), metavar="DIR")
    options = parser.parse_args(arguments)
    school = SCHOOLS[options.name]
    plan = school.breed
    if options.generations:
        plan = replace(plan, generations=tuple(options.generations))
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    rivals = load_rivals()

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        found, losses = attend(plan, rivals, options.seed, options.folder, report)
    except AgentError as error:
        report(f"specialists: error: {error}")
        return 2
    some = replace(plan, num_windows=min(plan.num_windows, _GATE_WINDOWS))
    controller, reached = teach(some, found, rivals, options.seed, report)
    first, second = plan.generations
    training: dict[str, Any] = {
        "algo": "cma-es, then a gate by gradients",
        "command": f"python -m agents.specialists {options.name} --seed {options.seed} --generations {first} {second}",
        "seed": options.seed,
        "specialists": losses,
        "loss": float(reached.mean()),
    }
    agent = Agent(options.name, controller=controller, card={"note": school.note, "training": training})
    save_agent(f"{options.out}/{options.name}.safetensors", agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
