"""The network of learned schedulers: a score for every request, a choice of the kind, then of the target.

Every waiting and every running request is scored by the same small network, from its own features and an embedding
of the engine. So the policy does not care in which slot a request stands, and the same weights serve any number of
slots and of chunk budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES, RUNNING_FEATURES, WAITING_FEATURES, ActionLayout, Kind

NEVER = -1e9  # log-probability of an illegal action: finite, so that no gradient is nan
KIND_PRIOR = (0.0, 2.0, -5.0)
"""Logits of run, admit and preempt in a fresh network: it admits what may be admitted and seldom preempts unless it
must. Whom, and when not to, is left to learning; without a prior it wastes its beginning on random preemptions."""
PRESENT = WAITING_FEATURES.index("present")
assert RUNNING_FEATURES.index("present") == PRESENT
MOST_GAIN = 10.0


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)


class SlotScorer(nn.Module):
    """Hidden features and a score for each slot of one kind: (B, S, F) and (B, H) to (B, S, H) and (B, S)."""

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.slot = nn.Linear(num_features, width)
        self.context = nn.Linear(width, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, slots: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Features and scores of the slots."""
        first = torch.relu(self.slot(slots) + self.context(context).unsqueeze(1))
        second = torch.relu(self.hidden(first))
        return second, self.score(second).squeeze(-1)


class ValueHead(nn.Module):
    """The value of a state from the engine and the pooled slots: mean and maximum over those that hold a request."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waiting = nn.Linear(len(WAITING_FEATURES), width)
        self.running = nn.Linear(len(RUNNING_FEATURES), width)
        self.out = mlp(len(ENGINE_FEATURES) + 4 * width, 2 * width, width, 1)

    def forward(self, engine: Tensor, waiting: Tensor, running: Tensor) -> Tensor:
        """(B,) values."""
        parts = [engine]
        for slots, layer in ((waiting, self.waiting), (running, self.running)):
            present = slots[..., PRESENT : PRESENT + 1]
            hidden = torch.relu(layer(slots)) * present
            parts += [hidden.sum(1) / present.sum(1).clamp(min=1.0), hidden.amax(1)]
        value: Tensor = self.out(torch.cat(parts, -1)).squeeze(-1)
        return value


def log_softmax_where(scores: Tensor, legal: Tensor) -> Tensor:
    """Log-probabilities over the legal entries of the last axis; NEVER elsewhere, and everywhere if none is legal."""
    masked = torch.where(legal, scores, torch.full_like(scores, NEVER))
    return torch.where(legal, torch.log_softmax(masked, -1), torch.full_like(scores, NEVER))


class Scaled(nn.Module):
    """Features (..., F) times a gain of each, 1 until `fit`.

    Observations are on a physical scale, where some of what matters happens within a few per cent (how much memory an
    admission leaves free): a network learns to see that ten times as fast if it varies as much as the rest.
    """

    gain: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(num_features))

    def fit(self, features: Tensor) -> None:
        """Take one over the deviations of typical features (B, F), at most `MOST_GAIN`; 1 for what never varies."""
        if len(features) > 1:
            deviation = features.std(0)
            gain = 1.0 / deviation.clamp(min=1.0 / MOST_GAIN)
            self.gain.copy_(torch.where(deviation > 1e-6, gain, torch.ones_like(gain)))

    def forward(self, features: Tensor) -> Tensor:
        """Scaled features."""
        return features * self.gain


class ScorerNetwork(nn.Module):
    """Flat observations and masks to log-probabilities of actions, and to values.

    log p(action) = log p(kind) + log p(target | kind). The head of the kind sees, for each kind, the features of the
    targets in proportion to their probability: the request that would be admitted, the one that would be preempted.

    Args:
        layout: numbers of slots and chunk budgets; part of the interface, not of the weights.
        level_shares: chunk budgets of RUN as shares of the token budget.
        width: units of a hidden layer.

    Example:
        >>> network = ScorerNetwork(ActionLayout(2, 3, 3), (0.5, 1.0))
        >>> observation = torch.zeros(1, network.observation_size)
        >>> network.log_probs(observation, torch.ones(1, 8, dtype=torch.bool)).exp().sum().item() > 0.99
        True
    """

    levels: Tensor
    kind_of: Tensor

    def __init__(self, layout: ActionLayout, level_shares: Sequence[float], width: int = 32) -> None:
        super().__init__()
        self.layout = layout
        self.width = width
        self.register_buffer("levels", torch.tensor(level_shares, dtype=torch.float32).unsqueeze(-1), persistent=False)
        kinds = [Kind.RUN] * layout.num_chunk_budgets
        kinds += [Kind.ADMIT] * layout.num_waiting_slots + [Kind.PREEMPT] * layout.num_running_slots
        self.register_buffer("kind_of", torch.tensor(kinds), persistent=False)
        self.engine = Scaled(len(ENGINE_FEATURES))
        self.waiting = Scaled(len(WAITING_FEATURES))
        self.running = Scaled(len(RUNNING_FEATURES))
        self.context = nn.Sequential(mlp(len(ENGINE_FEATURES), width, width), nn.ReLU())
        self.run = SlotScorer(1, width)
        self.admit = SlotScorer(len(WAITING_FEATURES), width)
        self.preempt = SlotScorer(len(RUNNING_FEATURES), width)
        self.kind = mlp(4 * width, width, len(Kind))
        self.value_head = ValueHead(width)
        last_of_kind = self.kind[-1]
        assert isinstance(last_of_kind, nn.Linear)
        for last in (self.run.score, self.admit.score, self.preempt.score, last_of_kind):
            nn.init.normal_(last.weight, std=0.1 * self.width**-0.5)  # begin close to uniform
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            last_of_kind.bias.copy_(torch.tensor(KIND_PRIOR))

    @property
    def observation_size(self) -> int:
        """Length of a flat observation."""
        slots = self.layout.num_waiting_slots * len(WAITING_FEATURES)
        return len(ENGINE_FEATURES) + slots + self.layout.num_running_slots * len(RUNNING_FEATURES)

    def parts(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N) into engine (B, G), waiting (B, W, F) and running (B, R, F)."""
        w, r = self.layout.num_waiting_slots, self.layout.num_running_slots
        first = len(ENGINE_FEATURES)
        middle = first + w * len(WAITING_FEATURES)
        waiting = observation[:, first:middle].reshape(-1, w, len(WAITING_FEATURES))
        running = observation[:, middle:].reshape(-1, r, len(RUNNING_FEATURES))
        return observation[:, :first], waiting, running

    def adapt(self, observations: Tensor) -> None:
        """Scale features by typical observations (B, N); for a network that has yet to learn."""
        engine, waiting, running = self.parts(observations)
        self.engine.fit(engine)
        self.waiting.fit(waiting[waiting[..., PRESENT] > 0.0])
        self.running.fit(running[running[..., PRESENT] > 0.0])

    def scaled(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`parts`, scaled."""
        engine, waiting, running = self.parts(observation)
        return self.engine(engine), self.waiting(waiting), self.running(running)

    def log_probs(self, observation: Tensor, legal: Tensor) -> Tensor:
        """(B, A) log-probabilities: observation (B, N) float32, legal (B, A) bool, in each some True."""
        engine, waiting, running = self.scaled(observation)
        context = self.context(engine)
        levels = self.levels.expand(len(observation), -1, -1)
        sizes = [self.layout.num_chunk_budgets, self.layout.num_waiting_slots, self.layout.num_running_slots]
        legal_of = torch.split(legal, sizes, -1)
        targets, pooled = [], [context]
        for scorer, slots, mask in zip(
            (self.run, self.admit, self.preempt), (levels, waiting, running), legal_of, strict=True
        ):
            hidden, scores = scorer(slots, context)
            log_p = log_softmax_where(scores, mask)
            targets.append(log_p)
            pooled.append((log_p.exp().unsqueeze(1) @ hidden).squeeze(1))
        possible = torch.stack([mask.any(-1) for mask in legal_of], -1)
        kinds = log_softmax_where(self.kind(torch.cat(pooled, -1)), possible)
        log_p = torch.cat(targets, -1) + kinds[:, self.kind_of]
        return torch.where(legal, log_p, torch.full_like(log_p, NEVER))

    def values(self, observation: Tensor) -> Tensor:
        """(B,) values of observations (B, N)."""
        value: Tensor = self.value_head(*self.scaled(observation))
        return value

    def greedy(self, log_probs: Tensor) -> Tensor:
        """(B,) actions: the kind with the largest total probability, then its best target.

        The largest single probability would not do: sixteen ways to admit share what one way to run has alone.
        """
        kind_of = self.kind_of.expand_as(log_probs)
        totals = torch.zeros(len(log_probs), len(Kind)).scatter_add(1, kind_of, log_probs.exp())
        of_best = kind_of == totals.argmax(-1, keepdim=True)
        return torch.where(of_best, log_probs, torch.full_like(log_probs, 2.0 * NEVER)).argmax(-1)

    @property
    def num_weights(self) -> int:
        """Numbers that training adjusts."""
        return sum(weight.numel() for weight in self.parameters())
