"""Expert iteration: measure what every action is worth by playing on from a copy of the engine, learn the better one.

At a decision the engine is copied once for each candidate action; each copy takes its action and plays on greedily, on
the same requests, for some seconds. The difference in request-seconds is what the actions differ by: no critic, and no
noise from the traffic, since all copies face the same future. Only the trainer sees that future: the network learns
from observations which action tends to be better (Anthony et al., 2017, with rollouts in place of tree search). Where
the measured gain is small the network is held to what it did before.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from infermax_gym.agents.compiled import Weights, rollout, weights_of
from infermax_gym.agents.networks import NEVER, ScorerNetwork
from infermax_gym.agents.play import play_network
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.episode import Run
from infermax_gym.streams import stream

Report = Callable[[int, float, float], None]
"""Called after every round with its number, the mean ln(latency) of the best network and the share of states where
another action than the network's own was better."""

MOST_DECISIONS = 20_000
"""Of one rollout, after which the policy is taken to go round in circles."""


@dataclass(frozen=True)
class SearchSettings:
    """How to search.

    Attributes:
        num_states: decisions measured in a round.
        num_candidates: actions measured at each: those that the network finds most likely, at least one of every kind.
        horizon_s: how far rollouts go, in simulated seconds; inf: to the end of the episode.
        measure: share of the decisions with a choice that are measured.
        explore: share of random legal actions while states are collected.
        gain_s: request-seconds of gain at which an action counts fully.
        epochs: passes over a round's states.
        learning_rate: of Adam.
        hold: weight of staying with the old policy.
    """

    num_states: int = 1500
    num_candidates: int = 5
    horizon_s: float = 30.0
    measure: float = 0.2
    explore: float = 0.02
    gain_s: float = 5.0
    epochs: int = 6
    learning_rate: float = 5e-4
    hold: float = 0.5


@dataclass(frozen=True, eq=False)
class MeasuredStates:
    """Decisions whose candidates were measured.

    Attributes:
        observations: (n, N) float32.
        masks: (n, A) bool.
        best: (n,) int64, the action with the least cost.
        gain_s: (n,) float64, request-seconds that it saves over the network's own.
    """

    observations: NDArray[np.float32]
    masks: NDArray[np.bool_]
    best: NDArray[np.int64]
    gain_s: NDArray[np.float64]


def action_costs(
    run: Run, actions: Sequence[int], weights: Weights, config: EnvConfig, *, horizon_s: float = math.inf
) -> NDArray[np.float64]:
    """(k,) request-seconds within the horizon after each action, the network playing on; the run stays as it is.

    Args:
        run: an episode with a decision to take.
        actions: candidates.
        weights: of the network that plays on (`infermax_gym.agents.compiled.weights_of`).
        config: of the environment.
        horizon_s: simulated seconds.
    """
    from infermax_gym.envs.scheduling.spaces import Buffers

    buffers = Buffers(config, 1)
    until_s = float(run.engine.record["clock_s"][0]) + horizon_s
    costs = []
    for action in actions:
        engine, lane = run.engine.copy(), run.lane.copy()
        engine.record["num_gaps"] = 0
        costs.append(
            rollout(engine.record, lane.record, buffers.flat, buffers.mask, weights, action, until_s, MOST_DECISIONS)
        )
    return np.array(costs)


def candidates_of(log_probs: NDArray[np.float32], kind_of: NDArray[Any], count: int) -> list[int]:
    """The most likely action of every legal kind, then the most likely others; at most `count`.

    Args:
        log_probs: (A,) of the network; illegal actions have `NEVER`.
        kind_of: (A,) kinds.
        count: how many.
    """
    legal = np.flatnonzero(log_probs > 0.5 * NEVER)
    ranked = legal[np.argsort(-log_probs[legal], kind="stable")]
    firsts = [int(ranked[kind_of[ranked] == kind][0]) for kind in np.unique(kind_of[ranked])]
    others = [int(action) for action in ranked if action not in firsts]
    return (firsts + others)[: max(count, len(firsts))]


def measure_states(network: ScorerNetwork, config: EnvConfig, settings: SearchSettings, *, seed: int) -> MeasuredStates:
    """Play episodes and measure decisions on the way.

    Args:
        network: plays, also on from the copies.
        config: where episodes come from.
        settings: how many, how far.
        seed: of the episodes and of exploration.
    """
    env = InferMaxEnv(config, flat=True)
    rng = stream(seed, "exploration")
    weights = weights_of(network)
    kind_of = network.kind_of.numpy()
    seen: list[tuple[NDArray[np.float32], NDArray[np.bool_], int, float]] = []
    observation, _ = env.reset(seed=seed)
    while len(seen) < settings.num_states:
        mask = env.action_masks()
        with torch.inference_mode():
            log_p = network.log_probs(torch.from_numpy(observation[None]), torch.from_numpy(mask[None]))
            action = int(network.greedy(log_p)[0])
        if mask.sum() > 1 and rng.random() < settings.measure:
            actions = candidates_of(log_p[0].numpy(), kind_of, settings.num_candidates)
            if action not in actions:
                actions.append(action)
            costs = action_costs(env.run, actions, weights, config, horizon_s=settings.horizon_s)
            best = int(costs.argmin())
            seen.append(
                (observation.copy(), mask.copy(), actions[best], float(costs[actions.index(action)] - costs[best]))
            )
        if rng.random() < settings.explore:
            action = int(rng.choice(np.flatnonzero(mask)))
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    observations, masks, best_actions, gains = zip(*seen, strict=True)
    return MeasuredStates(
        np.array(observations, np.float32), np.array(masks), np.array(best_actions, np.int64), np.array(gains)
    )


def distil(student: ScorerNetwork, states: MeasuredStates, settings: SearchSettings, *, seed: int) -> float:
    """Teach a network the better actions, in place; returns the last epoch's mean loss.

    The loss of a state is gain' x cross-entropy with the best action + hold x cross-entropy with the network as it
    was, where gain' is the measured gain over `gain_s`, at most 1.

    Args:
        student: the network.
        states: from `measure_states` with that network.
        settings: how to learn.
        seed: of the order of the batches.
    """
    observations, masks = torch.from_numpy(states.observations), torch.from_numpy(states.masks)
    best = torch.from_numpy(states.best)
    weight = torch.from_numpy(np.minimum(states.gain_s / settings.gain_s, 1.0).astype(np.float32))
    with torch.no_grad():
        before = student.log_probs(observations, masks).exp()
    rng = stream(seed, "policy")
    learned = [w for name, w in student.named_parameters() if not name.startswith("value_head")]
    optimizer = torch.optim.Adam(learned, settings.learning_rate)
    mean = 0.0
    for _ in range(settings.epochs):
        losses = []
        for batch in np.array_split(rng.permutation(len(best)), max(1, len(best) // 128)):
            log_p = student.log_probs(observations[batch], masks[batch])
            towards = -log_p.gather(1, best[batch].unsqueeze(1)).squeeze(1)
            legal = torch.where(masks[batch], log_p, torch.zeros_like(log_p))
            stay = -(before[batch] * legal).sum(1)
            loss = (weight[batch] * towards + settings.hold * stay).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        mean = float(np.mean(losses))
    return mean


def expert_iteration(
    network: ScorerNetwork,
    config: EnvConfig,
    validation: Sequence[TraceSlice],
    *,
    rounds: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    settings: SearchSettings | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> ScorerNetwork:
    """Search and learn in turns; a round's network is kept if it does better on the validation trace slices.

    Args:
        network: where it begins; left as it is.
        config: where episodes come from.
        validation: trace slices that decide what is kept.
        rounds: at most so many; None: until `stop`.
        stop: asked before every round.
        settings: how to search and learn.
        seed: of everything.
        report: called after every round. KeyboardInterrupt ends the search with what it has.
    """
    settings = settings or SearchSettings()
    best = copy.deepcopy(network)
    best_loss = mean_log_latency(best, config, validation)
    number = 0
    if report:
        report(0, best_loss, 0.0)
    try:
        while (rounds is None or number < rounds) and not stop():
            states = measure_states(best, config, settings, seed=seed + 1_000 * number)
            student = copy.deepcopy(best)
            distil(student, states, settings, seed=seed + number)
            loss = mean_log_latency(student, config, validation)
            if loss < best_loss:
                best, best_loss = student, loss
            number += 1
            if report:
                report(number, best_loss, float((states.gain_s > 0.05 * settings.gain_s).mean()))
    except KeyboardInterrupt:
        pass
    return best


def mean_log_latency(network: ScorerNetwork, config: EnvConfig, trace_slices: Sequence[TraceSlice]) -> float:
    """Mean ln(mean latency) over trace slices, greedily."""
    results = [play_network(network, config, trace_slice.workload, trace_slice.engine) for trace_slice in trace_slices]
    return float(np.mean([np.log(np.nanmean(result.latency_s)) for result in results]))
