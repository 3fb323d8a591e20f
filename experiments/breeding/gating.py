"""The gating network between specialists: a small network that learns which is to be active, by what a wrong one costs.

Every specialist plays every scenario, which says what it costs to have it active there; and the gating network, which
sees what a controller sees while it runs, learns to choose such that this cost is small (cost-sensitive
classification), first on what the right specialists see, then also on what the gated controller itself sees. Nobody
tells it which scenario it is in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from experiments.board.rivals import Rivals
from experiments.board.scenarios import group_of
from experiments.breeding.breeds import Breed
from experiments.breeding.controller_search import Report
from experiments.breeding.tasks import Task, excess, training_tasks
from infermax_gym.agents.controller import Controller, GatingNetwork
from infermax_gym.agents.controller_layout import NUM_FEATURES
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.streams import stream

Array = NDArray[np.float64]

_HIDDEN = 32
_MOST_COST = 0.5
"""Costs are cut there: how terrible the wrong specialist would be says nothing more about which one is right."""

_TYPICAL_COST = 0.02
_PER_SLICE = 40
_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class GatingExamples:
    """What the gating network learns from.

    Attributes:
        features: (examples, features) what a controller saw.
        costs: (examples, specialists) mean excess of each specialist in that scenario.
        weights: (examples,) such that all scenarios count alike.
    """

    features: Array
    costs: Array
    weights: Array


def costs_of(plan: Breed, tasks: Sequence[Task], specialists: Sequence[Controller]) -> Array:
    """(tasks, specialists) mean excess over the rival."""

    def one(job: tuple[Task, Controller]) -> float:
        task, controller = job
        return excess([trace_slice.serve(controller) for trace_slice in task.trace_slices], task.rival, plan)

    with ThreadPoolExecutor(2) as pool:
        losses = list(pool.map(one, product(tasks, specialists)))
    return np.array(losses).reshape(len(tasks), len(specialists))


def gating_examples(
    tasks: Sequence[Task], players: Sequence[Controller], costs: Array, rng: np.random.Generator
) -> GatingExamples:
    """What players (one for each task) see there, with what each specialist costs there."""
    features, indices, weights = [], [], []
    for i, (task, player) in enumerate(zip(tasks, players, strict=True)):
        seen = [s for trace_slice in task.trace_slices for s in _seen(player, trace_slice, rng)]
        features += seen
        indices += [i] * len(seen)
        weights += [1.0 / len(seen)] * len(seen)
    best = costs.min(axis=1, keepdims=True)
    return GatingExamples(np.array(features), np.minimum(costs - best, _MOST_COST)[indices], np.array(weights))


def _seen(player: Controller, trace_slice: TraceSlice, rng: np.random.Generator) -> list[Array]:
    predicted = trace_slice.predicted(player.sigma)
    settings = player.settings(trace_slice.workload, trace_slice.engine, predicted=predicted)
    # Half of them from the beginning: what is done before anything is known lasts, and is soon over.
    early = list(range(min(_PER_SLICE // 2, len(settings))))
    places = early + (len(early) + rng.permutation(len(settings) - len(early))[: _PER_SLICE // 2]).tolist()
    return [settings[i].features.copy() for i in places]


def train_gating(some: Sequence[GatingExamples], seed: int, num_steps: int = 1_500) -> GatingNetwork:
    """The gating network whose choices cost least, in expectation over its own probabilities.

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
    return GatingNetwork(*(part.astype(np.float32).astype(np.float64) for part in (scaled, outer.detach().numpy())))


def with_gating(plan: Breed, specialists: Sequence[Controller], gating: GatingNetwork) -> Controller:
    """The controller of some specialists and a gating network."""
    weights = np.stack([s.weights for s in specialists])
    return replace(specialists[0], weights=weights, gating=gating)


def learn_gating(
    plan: Breed,
    specialists: Mapping[str, Controller],
    rivals: Rivals,
    seed: int,
    report: Report,
    in_distribution_bonus: float = 0.0,
) -> tuple[Controller, Array]:
    """The gating network: learned on what the right specialists see, then also on what the controller itself sees.

    Args:
        plan: how the specialists were bred, which says what the scenarios are and what counts there.
        specialists: by the group of scenarios for which each is in-distribution.
        rivals: what costs are measured against.
        seed: of trace slices and weights.
        report: gets a line now and then.
        in_distribution_bonus: what a specialist's cost is lowered by in its own scenarios. Which of those that do about
            as well is a little better there, often by chance, says nothing about traffic that is much like those
            scenarios.

    Returns:
        The controller of the best round, and its mean excess in every task.
    """
    rng = stream(seed, "exploration")
    tasks = training_tasks(plan, rivals, seed)
    controllers = list(specialists.values())
    costs = costs_of(plan, tasks, controllers)
    report(f"the right specialist everywhere: {costs.min(axis=1).mean():+.4f}")
    in_distribution = np.array([[group_of(task.scenario) == name for name in specialists] for task in tasks])
    costs = costs - in_distribution_bonus * in_distribution
    some = [gating_examples(tasks, [controllers[i] for i in costs.argmin(axis=1)], costs, rng)]
    best: tuple[Controller, Array] | None = None
    for attempt in range(_ROUNDS):
        controller = with_gating(plan, controllers, train_gating(some, seed + attempt))
        reached = costs_of(plan, tasks, [controller])[:, 0]
        report(f"with the gating network, round {attempt}: {reached.mean():+.4f}, worst {reached.max():+.4f}")
        if best is None or reached.mean() < best[1].mean():
            best = controller, reached
        if attempt + 1 < _ROUNDS:
            some.append(gating_examples(tasks, [controller] * len(tasks), costs, rng))
    assert best is not None
    return best
