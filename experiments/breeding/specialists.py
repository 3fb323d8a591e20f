"""Specialists and the gate between them.

`python -m experiments.breeding.specialists NAME` makes `zoo/NAME.safetensors` again.

One linear controller cannot be right everywhere: what is best for long contexts on a small model is wrong for rollouts
on a large one. So each kind of traffic, memory and model gets a specialist of its own, bred on its loads only: first
the constants, from settings of the family, then all weights, from whatever specialist is best there; who is then
behind another or behind its rival is bred on. What comes out is chosen on windows that no search has seen.
`experiments.breeding.gating` then learns which of them is to be in charge.
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
from experiments.board.scenarios import GRID, group_of
from experiments.breeding.breed import BREEDS, Breed, Nursery, Report, courses
from experiments.breeding.gating import teach
from infermax_gym.agents.agent import Agent, AgentError
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_kernel import CONTROLLER_KNOBS, NUM_FEATURES, NUM_KNOBS
from infermax_gym.agents.evolution import Vector
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.recipes import VALIDATION_SEED
from infermax_gym.agents.storage import ZOO, load_agent, save_agent, write_bytes

LOAD_FEATURES = ("backlog", "long_wait", "free_blocks", "decode_context", "arrivals_share", "preemption_rate")
"""What a specialist looks at: how loaded the engine is. What traffic and engine it has, it need not ask."""

_PATIENCE = 12
"""Checks in vain after which a search ends."""

_TOO_FAR_BEHIND = 0.01
_STRICTNESS = 4.0
"""So many times more counts what is lost to the rival, for a specialist that is still behind it somewhere."""

_GIVES_UP = 0.65
"""The knob `late` to begin with: prefills are expected to take 1.3 times as long as alone."""

STAGES = ("constants", "weights", "mended")
"""What is done one after the other, each for all specialists."""


@dataclass(frozen=True)
class School:
    """How to make a gated controller.

    Attributes:
        note: what it is, one line.
        breed: how a specialist is bred: objective, rival, knobs, features, what it is told.
        guests: gated controllers of the zoo whose specialists, too, may be where a search of all weights begins.
        at_home: see `experiments.breeding.gating.teach`; for whoever is to play traffic that is none of its cells.
        gate_windows: training windows of a cell that the gate learns on. Goodput differs much from window to window.
    """

    note: str
    breed: Breed
    guests: tuple[str, ...] = ()
    at_home: float = 0.0
    gate_windows: int = 8


SCHOOLS: dict[str, School] = {
    "generalist": School(
        "specialists for traffic, memory and model behind one gate; knows no lengths",
        replace(
            BREEDS["generalist"],
            objective=Objective(mean_latency=1.0, p99_latency=0.4, busy=0.5),
            features=LOAD_FEATURES,
            hinge=3.0,
            stride=1,
            generations=(40, 120),
            population=16,
            num_windows=32,
            windows_at_once=8,
        ),
        at_home=0.02,
    ),
    "informed": School(
        "specialists that are told classes and noisy lengths, behind one gate; for mixed, reasoning and rollouts",
        replace(
            BREEDS["informed"],
            features=LOAD_FEATURES,
            generations=(40, 120),
            population=16,
            num_windows=32,
            windows_at_once=8,
        ),
        guests=("generalist",),
    ),
    "goodput": School(
        "specialists for requests within their limits on first token and time per token, behind one gate",
        replace(
            BREEDS["goodput"],
            features=(*LOAD_FEATURES, "late_share"),
            hinge=1.0,
            stride=1,
            generations=(30, 40),
            population=16,
            num_windows=32,
            windows_at_once=8,
        ),
        guests=("generalist",),
        at_home=0.02,
        gate_windows=16,
    ),
}


def groups_of(plan: Breed) -> list[str]:
    """Names of the specialists, such as "conv-tight-7b": the kinds of cells that a breed plays."""
    return list(dict.fromkeys(group_of(name) for name in GRID if plan.cells(name)))


def in_group(group: str) -> Callable[[str], bool]:
    """Whether a cell, by name, belongs to a group."""
    return lambda name: group_of(name) == group


def starts_of(plan: Breed, group: str, rivals: Rivals) -> list[Vector]:
    """Constants where the search of a specialist may begin.

    They are the settings of the family for all cells and for its own, each with and without pushing out, with and
    without a preference for those that will need little memory for a short time, and, if it may, with and without
    giving up those who are bound to be late.
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
    lates = (0.0, _GIVES_UP) if "late" in plan.knobs else (0.0,)
    found = []
    for action in actions:
        for margin, memory_time, late in product((-0.5, 0.5), (0.0, 0.5), lates):
            whole = weights_from_action(action[:11])[:, 0]
            whole[CONTROLLER_KNOBS.index("push_out")] = margin
            whole[CONTROLLER_KNOBS.index("memory_time")] = memory_time
            whole[CONTROLLER_KNOBS.index("late")] = late
            if len(action) > 11:
                whole[CONTROLLER_KNOBS.index("class_ttft")] = action[11]
            found.append(np.asarray(whole[rows]))
    return found


@dataclass(frozen=True, eq=False)
class Pupil:
    """A specialist under way.

    Attributes:
        controller: as it is now.
        loss: its mean excess over the rival, on windows that the search has not seen.
    """

    controller: Controller
    loss: float


class Classroom:
    """The cells of one specialist: windows to search on, and others to choose by."""

    def __init__(self, plan: Breed, group: str, rivals: Rivals, seed: int) -> None:
        self.plan = replace(plan, cells=in_group(group))
        others = replace(self.plan, num_windows=max(1, plan.num_windows // 2))
        self.training = Nursery(self.plan, courses(self.plan, rivals, seed))
        # Few numbers are soon found.
        self.quick = Nursery(replace(self.plan, windows_at_once=-(-plan.windows_at_once // 2)), self.training.schooling)
        self.choosing = Nursery(others, courses(others, rivals, VALIDATION_SEED + seed))
        self.group, self.rivals, self.seed = group, rivals, seed

    def begin(self) -> Pupil:
        """Search the constants, from the best start with and from the best without pushing out."""
        place = self.plan.knobs.index("push_out") if "push_out" in self.plan.knobs else None
        ranked = sorted(starts_of(self.plan, self.group, self.rivals), key=self.choosing.whole_loss)
        constants = []
        for start in ranked[:1] if place is None else _one_of_each(ranked, place):
            found = self.quick.search_constants(start, self.seed, spread=0.15)
            constants += [found.mean, found.best, start]
        return self._best_of(constants)

    def go_on(self, everybody: Sequence[Controller]) -> Pupil:
        """Search all weights: a while from the two specialists of any group that are best here, then from the better.

        What one of them has found by luck the others thus learn from it.
        """
        vectors = [self.training.vector(controller) for controller in everybody]
        starts = sorted(vectors, key=self.choosing.whole_loss)[:2]
        whole = self.plan.generations[1]
        rooms = (self.training, self.choosing)
        tried = [_search(*rooms, start, self.seed + 1 + i, -(-whole // 4)) for i, start in enumerate(starts)]
        better = min(tried, key=self.choosing.whole_loss)
        return self._best_of([_search(*rooms, better, self.seed + 3, whole), better, starts[0]])

    def mend(self, pupil: Pupil, everybody: Sequence[Controller]) -> Pupil:
        """Catch up: with a specialist of another group that has become better here, and with the rival.

        Who is too far behind the rival in one of its cells is bred on, and what it loses there counts for more.
        """
        vectors = [self.training.vector(controller) for controller in everybody]
        if min(map(self.choosing.whole_loss, vectors)) < pupil.loss:
            pupil = self.go_on(everybody)
        vector = self.training.vector(pupil.controller)
        if self.choosing.worst(vector) <= _TOO_FAR_BEHIND:
            return pupil
        rooms = (_stricter(self.training), _stricter(self.choosing))
        found = _search(*rooms, vector, self.seed + 4, self.plan.generations[1])
        return Pupil(self.training.controller(found), self.choosing.whole_loss(found))

    def _best_of(self, vectors: Sequence[Vector]) -> Pupil:
        losses = [self.choosing.whole_loss(vector) for vector in vectors]
        best = int(np.argmin(losses))
        return Pupil(self.training.controller(vectors[best]), losses[best])


def _stricter(nursery: Nursery) -> Nursery:
    """The same windows, where what is lost to the rival counts for more."""
    return Nursery(replace(nursery.breed, hinge=_STRICTNESS * nursery.breed.hinge), nursery.schooling)


def _search(training: Nursery, choosing: Nursery, start: Vector, seed: int, generations: int) -> Vector:
    """All weights, searched on some windows; of what the search comes across, what is best on the others."""
    return training.search_all(
        start, seed, generations=generations, check=choosing.whole_loss, check_every=3, patience=_PATIENCE
    ).checked


def _one_of_each(ranked: Sequence[Vector], place: int) -> list[Vector]:
    """The best start on either side of zero."""
    return [next(start for start in ranked if (start[place] > 0.0) == side) for side in (False, True)]


def guests_of(school: School) -> list[Controller]:
    """The specialists of the zoo that a school learns from, one controller each."""
    gated = [load_agent(ZOO / f"{name}.safetensors").controller for name in school.guests]
    return [replace(one, weights=weights, gate=None) for one in gated if one is not None for weights in one.weights]


def attend(
    plan: Breed,
    rivals: Rivals,
    seed: int,
    folder: Path | None,
    report: Report,
    guests: Sequence[Controller] = (),
) -> tuple[dict[str, Controller], dict[str, float]]:
    """All specialists and their losses: first each on its own, then each from the best of all, then who is behind.

    What a folder holds already is taken from there.

    Raises:
        AgentError: the folder holds specialists of another seed, school or number of generations, or of other guests.
    """
    pupils: dict[str, Pupil] = {}
    bred = _bred(plan, seed, guests)
    for stage in STAGES:
        for group in groups_of(plan):
            file = None if folder is None else folder / f"{group}-{stage}.json"
            pupil = None if file is None else _read(file, plan, bred)
            if pupil is None:
                pupil = _attended(Classroom(plan, group, rivals, seed), stage, pupils, guests)
                report(f"{group}, {stage}: {pupil.loss:+.4f}")
                if file is not None:
                    _write(file, pupil, bred)
            pupils[group] = pupil
    return {name: one.controller for name, one in pupils.items()}, {name: one.loss for name, one in pupils.items()}


def _attended(room: Classroom, stage: str, pupils: Mapping[str, Pupil], guests: Sequence[Controller]) -> Pupil:
    if stage == "constants":
        return room.begin()
    everybody = [one.controller for one in pupils.values()]
    return room.go_on([*everybody, *guests]) if stage == "weights" else room.mend(pupils[room.group], everybody)


def _bred(plan: Breed, seed: int, guests: Sequence[Controller]) -> dict[str, Any]:
    """How specialists came about, so that a folder is not taken for another's."""
    whose = hashlib.sha256(b"".join(guest.weights.tobytes() for guest in guests)).hexdigest() if guests else None
    return {"seed": seed, "generations": list(plan.generations), "note": plan.note, "guests": whose}


def _write(file: Path, pupil: Pupil, bred: dict[str, Any]) -> None:
    record = {"loss": pupil.loss, "weights": pupil.controller.weights.ravel().tolist(), **bred}
    write_bytes(file, json.dumps(record).encode())


def _read(file: Path, plan: Breed, bred: dict[str, Any]) -> Pupil | None:
    if not file.exists():
        return None
    record = json.loads(file.read_text())
    if any(record.get(name) != value for name, value in bred.items()):
        raise AgentError(f"{file}: was bred with another seed, generations, school or guests; take another folder")
    controller = Controller(
        np.array(record["weights"]).reshape(NUM_KNOBS, NUM_FEATURES),
        interval_s=plan.interval_s,
        believes=plan.believes,
        classes=plan.classes,
        sigma=plan.sigma,
    )
    return Pupil(controller, record["loss"])


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
        found, losses = attend(plan, rivals, options.seed, options.folder, report, guests_of(school))
    except AgentError as error:
        report(f"specialists: error: {error}")
        return 2
    some = replace(plan, num_windows=min(plan.num_windows, school.gate_windows))
    controller, reached = teach(some, found, rivals, options.seed, report, school.at_home)
    first, second = plan.generations
    training: dict[str, Any] = {
        "algo": "cma-es, then a gate by gradients",
        "command": f"python -m experiments.breeding.specialists {options.name} --seed {options.seed} "
        f"--generations {first} {second}",
        "seed": options.seed,
        "specialists": losses,
        "loss": float(reached.mean()),
    }
    agent = Agent(options.name, controller=controller, card={"note": school.note, "training": training})
    save_agent(f"{options.out}/{options.name}.safetensors", agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
