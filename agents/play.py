"""Whole workloads under a network, greedily: what evaluation and `--agent` run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from infermax_gym.agents.compiled import play_on, weights_of
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.engine import EngineConfig, Information, SimulationResult
from infermax_gym.engine.recorder import result_of
from infermax_gym.engine.session import drain
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Episode, Run, begin_run
from infermax_gym.envs.scheduling.spaces import Buffers
from infermax_gym.envs.scheduling.step import finish_step, go_on, start, step_one
from infermax_gym.envs.status import LOG_FULL, RUNNING_ON
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

MOST_DECISIONS = 20
"""Decisions per request after which a policy is taken to go round in circles (good ones need about five)."""

FALLBACK = -1  # no legal action: the environment chooses

Decide = Callable[[NDArray[np.float32], NDArray[np.int8]], NDArray[np.int64]]
"""Observations (n, N) and masks (n, A) of the lanes still running to actions (n,)."""


def greedy_decider(network: ScorerNetwork) -> Decide:
    """Decide by the network's best kind, then its best target."""

    @torch.inference_mode()
    def decide(observations: NDArray[np.float32], masks: NDArray[np.int8]) -> NDArray[np.int64]:
        log_probs = network.log_probs(torch.from_numpy(observations), torch.from_numpy(masks != 0))
        return network.greedy(log_probs).numpy()

    return decide


def random_decider(rng: np.random.Generator) -> Decide:
    """Decide uniformly among the legal actions."""

    def decide(observations: NDArray[np.float32], masks: NDArray[np.int8]) -> NDArray[np.int64]:
        scores = np.where(masks != 0, rng.random(masks.shape), -1.0)
        return np.asarray(scores.argmax(1), np.int64)

    return decide


class _Lane:
    """One workload under way."""

    def __init__(self, run: Run, buffers: Buffers, index: int, record_schedule: bool) -> None:
        self.run = run
        self.record_schedule = record_schedule
        self.decisions_left = 1_000 + MOST_DECISIONS * len(run.episode.workload)
        part = slice(index, index + 1)
        self.flat, self.mask, self.reward_components = (
            buffers.flat[part],
            buffers.mask[part],
            buffers.reward_components[part],
        )
        start(run.engine.core, run.lane.core)
        self.on = self.settle()

    def step(self, action: int) -> None:
        """One action, and on to the next decision."""
        run = self.run
        self.decisions_left -= 1
        status = step_one(run.engine.record, run.lane.record, action, self.reward_components, self.flat, self.mask)
        self.on = self.settle() if status == LOG_FULL else status == RUNNING_ON

    def settle(self) -> bool:
        """Empty full logs until there is something to decide; refresh the observation; whether the run goes on."""
        run = self.run
        if run.lane.record["status"][0] == LOG_FULL:
            run.recorder.empty(run.engine)
            drain(run.engine, run.recorder, self._go_on, LOG_FULL)
        status = finish_step(run.engine.core, run.lane.core, self.reward_components[0], self.flat[0], self.mask[0])
        return bool(status == RUNNING_ON)

    def _go_on(self) -> int:
        go_on(self.run.engine.core, self.run.lane.core)
        return int(self.run.lane.record["status"][0])

    def result(self) -> SimulationResult:
        """What the run left behind."""
        self.run.recorder.empty(self.run.engine)
        return result_of(self.run.engine, self.run.episode.workload, self.run.recorder, self.record_schedule)


def play(
    decide: Decide, config: EnvConfig, episodes: Sequence[Episode], *, record_schedule: bool = False
) -> list[SimulationResult]:
    """Serve episodes side by side to their ends.

    A policy that preempts for ever would never end: after 1,000 + `MOST_DECISIONS` decisions per request the
    environment's fallback (run; else a victim; else an admission) finishes what is left, slowly.

    Args:
        decide: chooses the actions.
        config: slots, chunk budgets, `decide` and `base` of the environment; its ranges play no part, and its token
            budget is the first episode's.
        episodes: requests, replica and predictions.
        record_schedule: keep every iteration.
    """
    config = _interface(config, episodes[0].engine)
    buffers = Buffers(config, len(episodes))
    lanes = [
        _Lane(begin_run(config, episode, record_schedule=record_schedule), buffers, i, record_schedule)
        for i, episode in enumerate(episodes)
    ]
    active = [i for i, lane in enumerate(lanes) if lane.on]
    while active:
        if len(active) == len(lanes):
            actions = decide(buffers.flat, buffers.mask)
        else:
            actions = decide(buffers.flat[active], buffers.mask[active])
        for i, action in zip(active, actions.tolist(), strict=True):
            lanes[i].step(action if lanes[i].decisions_left > 0 else FALLBACK)
        active = [i for i in active if lanes[i].on]
    return [lane.result() for lane in lanes]


def play_network(
    network: ScorerNetwork,
    config: EnvConfig,
    workload: Workload,
    engine: EngineConfig,
    *,
    predicted: NDArray[np.float64] | None = None,
    record_schedule: bool = False,
) -> SimulationResult:
    """Serve one workload under a network, greedily and compiled; arguments as in `play`."""
    config = _interface(config, engine)
    run = begin_run(config, Episode(workload, engine, predicted), record_schedule=record_schedule)
    lane = _Lane(run, Buffers(config, 1), 0, record_schedule)
    weights = weights_of(network)
    most = lane.decisions_left
    while lane.on:
        play_on(run.engine.record, run.lane.record, lane.flat, lane.mask, weights, most)
        lane.on = lane.settle()
    return lane.result()


def _interface(config: EnvConfig, engine: EngineConfig) -> EnvConfig:
    """The environment with an engine's token budget and without limits."""
    budget = engine.max_num_batched_tokens
    return config.changed(
        max_num_batched_tokens=budget, max_decisions=None, max_decisions_per_request=None, time_limit_s=np.inf
    )


class RandomPlayer:
    """Random legal play, the floor of every comparison: uniform over legal actions."""

    information = Information.NONE

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end."""
        decide = random_decider(stream(seed, "exploration"))
        return play(decide, EnvConfig(), [Episode(workload, engine, None)], record_schedule=record_schedule)[0]
