"""The training loop around PPO: evaluation on fixed trace slices, the best network kept, checkpoints to go on from."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from infermax_gym.agents.checkpoint import Progress, save_checkpoint
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.ppo import TimedPPO, mean_latency_s, network_of
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.envs.scheduling.config import EnvConfig

_MEMORY = 8.0  # the larger, the fewer of the last updates an average remembers

Report = Callable[[Progress], None]


class EvaluateAndStop(BaseCallback):
    """Evaluates before the first and after every few rollouts, keeps the best, checkpoints, and ends on time.

    Everything happens at the beginning of a rollout, when no gradient step is under way, so that a checkpoint holds
    all there is.
    """

    def __init__(
        self,
        config: EnvConfig,
        trace_slices: Sequence[TraceSlice],
        progress: Progress,
        *,
        every: int,
        patience: int | None,
        minutes: float | None,
        num_decisions: int | None,
        checkpoint: Path | None,
        report: Report | None,
    ) -> None:
        super().__init__()
        self.num_decisions = num_decisions
        self.config = config
        self.trace_slices = trace_slices
        self.progress = progress
        self.every = every
        self.patience = patience
        self.minutes = minutes
        self.checkpoint = checkpoint
        self.report = report
        self._began = time.monotonic() - progress.elapsed_s
        self._fresh = progress.num_updates > 0  # resumed: this rollout's evaluation has been done

    def share_left(self) -> float:
        """Of the training."""
        used = 0.0 if self.num_decisions is None else self.num_timesteps / self.num_decisions
        if self.minutes is not None:
            used = max(used, self.progress.elapsed_s / (60.0 * self.minutes))
        return max(0.0, 1.0 - used)

    def _on_step(self) -> bool:
        self.progress.elapsed_s = time.monotonic() - self._began
        if self.patience is not None and self.progress.since_best >= self.patience:
            return False
        return self.minutes is None or self.progress.elapsed_s < 60.0 * self.minutes

    def _on_rollout_start(self) -> None:
        self._average()
        if not self._fresh and self.progress.num_updates % self.every == 0:
            self.evaluate()
            if self.checkpoint is not None:
                save_checkpoint(self.checkpoint, self._timed, self.progress)
        self._fresh = False

    def _on_rollout_end(self) -> None:
        self.progress.num_updates += 1

    def _on_training_end(self) -> None:
        self._average()
        self.evaluate()

    @property
    def _timed(self) -> TimedPPO:
        assert isinstance(self.model, TimedPPO)
        return self.model

    def _average(self) -> None:
        """Take the present weights into the average, which mostly remembers the last eighth of the updates.

        Gradients are noisy and the optimum is flat: averaged weights are better than the last ones (polynomial-decay
        averaging; Shamir & Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", 2013).
        """
        if self.progress.num_averaged > self.progress.num_updates:
            return  # nothing was learned since
        self.progress.num_averaged = self.progress.num_updates + 1
        average = self.progress.average
        share = (_MEMORY + 1.0) / (self.progress.num_updates + 1.0 + _MEMORY)
        for name, now in network_of(self._timed).state_dict().items():
            average[name] = torch.lerp(average[name], now, share) if name in average else now.clone()

    def evaluate(self) -> None:
        """Measure the averaged network on the validation trace slices and keep it if it is the best so far."""
        network = copy.deepcopy(network_of(self._timed))
        network.load_state_dict(self.progress.average)
        latencies = mean_latency_s(network, self.config, self.trace_slices)
        loss = float(np.mean(np.log(latencies)))
        progress = self.progress
        progress.elapsed_s = time.monotonic() - self._began
        row = (self.num_timesteps, progress.elapsed_s, float(np.mean(latencies)), float(np.exp(loss)))
        progress.curve.append(row)
        progress.since_best += 1
        self.logger.record("eval/latency_s", float(np.exp(loss)))
        if loss < progress.best_loss:
            progress.since_best = 0
            progress.best_loss = loss
            progress.best = copy.deepcopy(network.state_dict())
        if self.report is not None:
            self.report(progress)


def train_ppo(
    model: TimedPPO,
    config: EnvConfig,
    trace_slices: Sequence[TraceSlice],
    *,
    num_decisions: int | None = None,
    minutes: float | None = None,
    every: int = 10,
    patience: int | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> tuple[ScorerNetwork, Progress]:
    """Train, and return the network that did best on the validation trace slices.

    Args:
        model: from `make_ppo`, or after `load_checkpoint`.
        config: of its environment.
        trace_slices: validation trace slices, which are neither trained on nor part of the final comparison.
        num_decisions: stop after so many decisions in all ...
        minutes: ... or so much time in all, whichever comes first.
        every: rollouts between two evaluations.
        patience: stop after so many evaluations without a better network; None: never.
        progress: where a checkpoint stood.
        checkpoint: file to keep up to date for `load_checkpoint`.
        report: called after every evaluation. KeyboardInterrupt ends training with what there is.

    Raises:
        ValueError: neither `num_decisions` nor `minutes`.
    """
    if num_decisions is None and minutes is None:
        raise ValueError("say how long to train: num_decisions or minutes")
    progress = progress or Progress()
    callback = EvaluateAndStop(
        config,
        trace_slices,
        progress,
        every=every,
        patience=patience,
        minutes=minutes,
        num_decisions=num_decisions,
        checkpoint=checkpoint,
        report=report,
    )
    model.share_left = callback.share_left
    left = 10**12 if num_decisions is None else num_decisions - model.num_timesteps
    try:
        if left > 0:
            model.learn(left, callback, reset_num_timesteps=False, log_interval=every)
    except KeyboardInterrupt:
        pass
    network = copy.deepcopy(network_of(model))
    if progress.best:
        network.load_state_dict(progress.best)
    return network, progress
