"""Specialists and the gating network between them.

    python -m experiments.breeding.specialists generalist --out agents/zoo

One linear controller cannot be right everywhere: what is best for long contexts on a small model is wrong for rollouts
on a large one. So each kind of traffic, memory and model gets a specialist of its own, bred on its loads only. First
the constants, from settings of the family, then all weights, from whatever specialist is best there. A specialist
that is then behind another or behind its rival is refined. What comes out is chosen on trace slices that no
search has seen. `experiments.breeding.gating` then learns which of them is to be active.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.board.rivals import Rivals, load_rivals
from experiments.board.scenarios import SCENARIOS, group_of
from experiments.breeding.breeds import BREEDS, Breed
from experiments.breeding.controller_search import ControllerSearch, Report
from experiments.breeding.gating import learn_gating
from experiments.breeding.tasks import training_tasks
from infermax_gym.agents.agent import Agent, AgentError
from infermax_gym.agents.cards import ZOO
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_layout import (
    CONTROLLER_KNOBS,
    FEATURE_ONE,
    KNOB_CLASS_TTFT,
    KNOB_MEMORY_TIME,
    KNOB_PREEMPT,
    KNOB_SHED,
    NUM_FEATURES,
    NUM_KNOBS,
)
from infermax_gym.agents.evolution import Vector
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.recipes import VALIDATION_SEED
from infermax_gym.agents.storage import load_agent, save_agent, write_bytes
from infermax_gym.envs.knobs.layout import KNOB_NAMES

LOAD_FEATURES = ("backlog", "long_wait", "free_blocks", "decode_context", "arrivals_share", "preemption_rate")
"""What a specialist looks at: how loaded the engine is. What traffic and engine it has, it need not ask."""

_PATIENCE = 12
"""Checks in vain after which a search ends."""

_TOO_FAR_BEHIND = 0.01
_STRICTNESS = 4.0
"""So many times more counts what is lost to the rival, for a specialist that is still behind it somewhere."""

_SHEDS = 0.65
"""The knob `shed` to begin with: prefills are expected to take 1.3 times as long as alone."""

STAGES = ("constants", "weights", "refined")
"""What is done one after the other, each for all specialists."""


@dataclass(frozen=True)
class SpecialistRecipe:
    """How to make a gated controller.

    Attributes:
        note: what it is, one line.
        breed: how a specialist is bred: objective, rival, knobs, features, what it knows.
        warm_starts: gated controllers of the zoo whose specialists, too, may be where a search of all weights begins.
        in_distribution_bonus: see `experiments.breeding.gating.learn_gating`; for an agent that is to play
            traffic that is none of its scenarios.
        num_gating_slices: training trace slices of a scenario that the gating network learns on. Goodput
            differs much from trace slice to trace slice.
    """

    note: str
    breed: Breed
    warm_starts: tuple[str, ...] = ()
    in_distribution_bonus: float = 0.0
    num_gating_slices: int = 8


RECIPES: dict[str, SpecialistRecipe] = {
    "generalist": SpecialistRecipe(
        "specialists for traffic, memory and model behind one gating network; knows no lengths",
        replace(
            BREEDS["generalist"],
            objective=Objective(mean_latency=1.0, p99_latency=0.4, busy=0.5),
            features=LOAD_FEATURES,
            hinge=3.0,
            stride=1,
            generations=(40, 120),
            population=16,
            num_slices=32,
            slices_at_once=8,
        ),
        in_distribution_bonus=0.02,
    ),
    "informed": SpecialistRecipe(
        "specialists that know classes and noisy lengths, behind one gating network; mixed, reasoning, rollouts",
        replace(
            BREEDS["informed"],
            features=LOAD_FEATURES,
            generations=(40, 120),
            population=16,
            num_slices=32,
            slices_at_once=8,
        ),
        warm_starts=("generalist",),
    ),
    "goodput": SpecialistRecipe(
        "specialists for requests within their limits on first token and time per token, behind one gating network",
        replace(
            BREEDS["goodput"],
            features=(*LOAD_FEATURES, "missed_share"),
            hinge=1.0,
            stride=1,
            generations=(30, 40),
            population=16,
            num_slices=32,
            slices_at_once=8,
        ),
        warm_starts=("generalist",),
        in_distribution_bonus=0.02,
        num_gating_slices=16,
    ),
}


def groups_of(plan: Breed) -> list[str]:
    """Names of the specialists, such as "conv-tight-7b": the kinds of scenarios that a breed plays."""
    return list(dict.fromkeys(group_of(name) for name in SCENARIOS if plan.scenarios(name)))


def in_group(group: str) -> Callable[[str], bool]:
    """Whether a scenario, by name, belongs to a group."""
    return lambda name: group_of(name) == group


def starts_of(plan: Breed, group: str, rivals: Rivals) -> list[Vector]:
    """Constants where the search of a specialist may begin.

    They are the settings of the family for all scenarios and for its own, each with and without preempting, with and
    without a preference for those that will need little memory for a short time, and, if it may, with and without
    shedding requests that will miss their deadline.
    """
    key = {"goodput": "goodput", "informed": "informed"}.get(plan.rival, "mean")
    actions = [np.array(rivals.overall["mean"]), np.array(rivals.overall["blend"])]
    for name in filter(in_group(group), SCENARIOS):
        actions += [
            np.array(rivals.per_cell[k][name])
            for k in dict.fromkeys((key, "mean"))
            if name in rivals.per_cell.get(k, {})
        ]
    places = [CONTROLLER_KNOBS.index(name) for name in plan.knobs]
    sheds = (0.0, _SHEDS) if "shed" in plan.knobs else (0.0,)
    found = []
    for action in actions:
        for margin, memory_time, shed in product((-0.5, 0.5), (0.0, 0.5), sheds):
            whole = weights_from_action(action[: len(KNOB_NAMES)])[:, FEATURE_ONE]
            whole[KNOB_PREEMPT] = margin
            whole[KNOB_MEMORY_TIME] = memory_time
            whole[KNOB_SHED] = shed
            if len(action) > len(KNOB_NAMES):
                whole[KNOB_CLASS_TTFT] = action[len(KNOB_NAMES)]
            found.append(np.asarray(whole[places]))
    return found


@dataclass(frozen=True, eq=False)
class Candidate:
    """A specialist under way.

    Attributes:
        controller: as it is now.
        loss: its mean excess over the rival, on trace slices that the search has not seen.
    """

    controller: Controller
    loss: float


class SpecialistTraining:
    """The scenarios of one specialist: trace slices to search on, and others to choose by."""

    def __init__(self, plan: Breed, group: str, rivals: Rivals, seed: int) -> None:
        self.plan = replace(plan, scenarios=in_group(group))
        others = replace(self.plan, num_slices=max(1, plan.num_slices // 2))
        self.training = ControllerSearch(self.plan, training_tasks(self.plan, rivals, seed))
        # Few numbers are soon found.
        self.quick = ControllerSearch(
            replace(self.plan, slices_at_once=-(-plan.slices_at_once // 2)), self.training.tasks
        )
        self.choosing = ControllerSearch(others, training_tasks(others, rivals, VALIDATION_SEED + seed))
        self.group, self.rivals, self.seed = group, rivals, seed

    def search_constants(self) -> Candidate:
        """Search the constants, from the best start with and from the best without preempting."""
        place = self.plan.knobs.index("preempt") if "preempt" in self.plan.knobs else None
        ranked = sorted(starts_of(self.plan, self.group, self.rivals), key=self.choosing.whole_loss)
        constants = []
        for start in ranked[:1] if place is None else _one_of_each(ranked, place):
            found = self.quick.search_constants(start, self.seed, spread=0.15)
            constants += [found.mean, found.best, start]
        return self._best_of(constants)

    def search_weights(self, candidates: Sequence[Controller]) -> Candidate:
        """Search all weights: a while from the two specialists of any group that are best here, then from the better.

        What one of them has found by luck the others thus learn from it.
        """
        vectors = [self.training.vector(controller) for controller in candidates]
        starts = sorted(vectors, key=self.choosing.whole_loss)[:2]
        whole = self.plan.generations[1]
        searches = (self.training, self.choosing)
        tried = [_search(*searches, start, self.seed + 1 + i, -(-whole // 4)) for i, start in enumerate(starts)]
        better = min(tried, key=self.choosing.whole_loss)
        return self._best_of([_search(*searches, better, self.seed + 3, whole), better, starts[0]])

    def refine(self, candidate: Candidate, candidates: Sequence[Controller]) -> Candidate:
        """Catch up: with a specialist of another group that has become better here, and with the rival.

        A candidate too far behind the rival in a scenario is searched on, and what it loses there counts for more.
        """
        vectors = [self.training.vector(controller) for controller in candidates]
        if min(map(self.choosing.whole_loss, vectors)) < candidate.loss:
            candidate = self.search_weights(candidates)
        vector = self.training.vector(candidate.controller)
        if self.choosing.worst(vector) <= _TOO_FAR_BEHIND:
            return candidate
        searches = (_stricter(self.training), _stricter(self.choosing))
        found = _search(*searches, vector, self.seed + 4, self.plan.generations[1])
        return Candidate(self.training.controller(found), self.choosing.whole_loss(found))

    def _best_of(self, vectors: Sequence[Vector]) -> Candidate:
        losses = [self.choosing.whole_loss(vector) for vector in vectors]
        best = int(np.argmin(losses))
        return Candidate(self.training.controller(vectors[best]), losses[best])


def _stricter(searching: ControllerSearch) -> ControllerSearch:
    """The same trace slices, where what is lost to the rival counts for more."""
    return ControllerSearch(replace(searching.breed, hinge=_STRICTNESS * searching.breed.hinge), searching.tasks)


def _search(
    training: ControllerSearch, choosing: ControllerSearch, start: Vector, seed: int, generations: int
) -> Vector:
    """All weights, searched on some trace slices; of what the search comes across, what is best on the others."""
    return training.search_all(
        start, seed, generations=generations, check=choosing.whole_loss, check_every=3, patience=_PATIENCE
    ).checked


def _one_of_each(ranked: Sequence[Vector], place: int) -> list[Vector]:
    """The best start on either side of zero."""
    return [next(start for start in ranked if (start[place] > 0.0) == side) for side in (False, True)]


def warm_starts_of(recipe: SpecialistRecipe) -> list[Controller]:
    """The specialists of the zoo that a recipe begins at as well, one controller each."""
    gated = [load_agent(ZOO / f"{name}.safetensors").controller for name in recipe.warm_starts]
    return [replace(one, weights=weights, gating=None) for one in gated if one is not None for weights in one.weights]


def train_specialists(
    plan: Breed,
    rivals: Rivals,
    seed: int,
    folder: Path | None,
    report: Report,
    warm_starts: Sequence[Controller] = (),
) -> tuple[dict[str, Controller], dict[str, float]]:
    """All specialists and their losses: first each on its own, then each from the best of all, then those behind.

    What a folder holds already is taken from there.

    Raises:
        AgentError: the folder holds specialists of another seed, recipe, number of generations or warm starts.
    """
    candidates: dict[str, Candidate] = {}
    bred = _bred(plan, seed, warm_starts)
    for stage in STAGES:
        for group in groups_of(plan):
            file = None if folder is None else folder / f"{group}-{stage}.json"
            candidate = None if file is None else _read(file, plan, bred)
            if candidate is None:
                candidate = _advanced(SpecialistTraining(plan, group, rivals, seed), stage, candidates, warm_starts)
                report(f"{group}, {stage}: {candidate.loss:+.4f}")
                if file is not None:
                    _write(file, candidate, bred)
            candidates[group] = candidate
    controllers = {name: candidate.controller for name, candidate in candidates.items()}
    return controllers, {name: candidate.loss for name, candidate in candidates.items()}


def _advanced(
    training: SpecialistTraining, stage: str, candidates: Mapping[str, Candidate], warm_starts: Sequence[Controller]
) -> Candidate:
    if stage == "constants":
        return training.search_constants()
    controllers = [candidate.controller for candidate in candidates.values()]
    if stage == "weights":
        return training.search_weights([*controllers, *warm_starts])
    return training.refine(candidates[training.group], controllers)


def _bred(plan: Breed, seed: int, warm_starts: Sequence[Controller]) -> dict[str, Any]:
    """How specialists came about, so that a folder is not taken for another's."""
    whose = (
        hashlib.sha256(b"".join(warm_start.weights.tobytes() for warm_start in warm_starts)).hexdigest()
        if warm_starts
        else None
    )
    return {"seed": seed, "generations": list(plan.generations), "note": plan.note, "warm_starts": whose}


def _write(file: Path, candidate: Candidate, bred: dict[str, Any]) -> None:
    record = {"loss": candidate.loss, "weights": candidate.controller.weights.ravel().tolist(), **bred}
    write_bytes(file, json.dumps(record).encode())


def _read(file: Path, plan: Breed, bred: dict[str, Any]) -> Candidate | None:
    if not file.exists():
        return None
    record = json.loads(file.read_text())
    if any(record.get(name) != value for name, value in bred.items()):
        raise AgentError(f"{file}: was bred with another seed, generations, recipe or warm starts; take another folder")
    controller = Controller(
        np.array(record["weights"]).reshape(NUM_KNOBS, NUM_FEATURES),
        interval_s=plan.interval_s,
        estimates_lengths=plan.estimates_lengths,
        classes=plan.classes,
        sigma=plan.sigma,
    )
    return Candidate(controller, record["loss"])


def main(arguments: list[str] | None = None) -> int:
    """Make a gated controller again."""
    parser = argparse.ArgumentParser(description="Breed specialists and teach a gating network.")
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--generations", type=int, nargs=2, help="of a specialist: of the constants, then of all weights"
    )
    parser.add_argument("--folder", type=Path, help="keeps finished specialists, so that an interrupted run goes on")
    parser.add_argument("--out", type=Path, default=Path("runs/bred"), metavar="DIR", help="gets NAME.safetensors")
    options = parser.parse_args(arguments)
    recipe = RECIPES[options.name]
    plan = recipe.breed
    if options.generations:
        plan = replace(plan, generations=tuple(options.generations))
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    rivals = load_rivals()

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        found, losses = train_specialists(plan, rivals, options.seed, options.folder, report, warm_starts_of(recipe))
    except AgentError as error:
        report(f"specialists: error: {error}")
        return 2
    some = replace(plan, num_slices=min(plan.num_slices, recipe.num_gating_slices))
    controller, reached = learn_gating(some, found, rivals, options.seed, report, recipe.in_distribution_bonus)
    first, second = plan.generations
    training: dict[str, Any] = {
        "algo": "cma-es, then a gating network by gradients",
        "command": f"python -m experiments.breeding.specialists {options.name} --seed {options.seed} "
        f"--generations {first} {second}",
        "seed": options.seed,
        "specialists": losses,
        "loss": float(reached.mean()),
    }
    agent = Agent(options.name, controller=controller, card={"note": recipe.note, "training": training})
    options.out.mkdir(parents=True, exist_ok=True)
    save_agent(options.out / f"{options.name}.safetensors", agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
