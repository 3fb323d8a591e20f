"""The selector's network: learns which expert serves best in what it sees, from what each expert reaches there.

Cost-sensitive classification: the expected cost of a choice at random by the network's softmax is made small. Several
networks, each of which sees a random part of the scenarios, are averaged; the average is one network with all hidden
units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.transfer.measure import Measured
from infermax_gym.agents.outlook import FEATURES
from infermax_gym.agents.selector import Selector
from infermax_gym.baselines.table.shares import Shares


@dataclass(frozen=True)
class Goal:
    """What a choice costs.

    Attributes:
        tail: weight of ln(p99 over the default's).
        behind: how many times a loss against the default counts again.
        at_most: beyond this cost one is as bad as another.
        goodput: whether goodput counts, and not latency.
    """

    tail: float = 0.6
    behind: float = 15.0
    at_most: float = 2.0
    goodput: bool = False

    def cost(self, measured: Measured, count: int) -> NDArray[np.float64]:
        """(count,) cost of having each of the first experts serve a scenario."""
        main = measured.goodput if self.goodput else measured.mean
        cost = main + self.behind * np.maximum(main, 0.0)
        if not self.goodput:
            cost = cost + self.tail * measured.p99
        return np.asarray(np.minimum(cost - cost[:count].min(), self.at_most)[:count])


@dataclass(frozen=True)
class Training:
    """How the network is trained.

    Attributes:
        hidden: units of one network.
        networks: how many are averaged.
        steps: of Adam.
        noise: standard deviation added to the standardised features.
        decay: weight decay.
        seed: of everything.
    """

    hidden: int = 24
    networks: int = 6
    steps: int = 2500
    noise: float = 0.2
    decay: float = 1e-3
    seed: int = 0


def fit(data: Sequence[Measured], experts: tuple[Shares, ...], goal: Goal, training: Training) -> Selector:
    """A selector between experts, the first ones that were measured."""
    features = np.clip(np.concatenate([one.seen for one in data]), -10.0, 10.0)
    scenario_of = np.concatenate([np.full(len(one.seen), k) for k, one in enumerate(data)])
    weight = np.concatenate([np.full(len(one.seen), 1.0 / len(one.seen)) for one in data])
    costs = np.stack([goal.cost(one, len(experts)) for one in data])
    centre, scale = features.mean(0), features.std(0) + 1e-6
    centre[0], scale[0] = 0.0, 1.0
    inputs = (features - centre) / scale
    rng = np.random.default_rng(training.seed)
    parts = []
    for k in range(training.networks):
        kept = rng.random(len(data)) < (0.85 if training.networks > 1 else 2.0)
        which = np.flatnonzero(kept[scenario_of])
        parts.append(_network(inputs[which], costs[scenario_of[which]], weight[which], training, training.seed + k))
    inner = np.concatenate([part[0] for part in parts]) / scale
    inner[:, 0] -= inner[:, 1:] @ centre[1:]
    outer = np.concatenate([part[1][:, :-1] for part in parts], axis=1) / len(parts)
    bias = np.mean([part[1][:, -1] for part in parts], axis=0)
    return Selector(experts, _stored(inner), _stored(np.column_stack([outer, bias])))


def _stored(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return weights.astype(np.float32).astype(np.float64)


def _network(
    inputs: NDArray[np.float64],
    costs: NDArray[np.float64],
    weight: NDArray[np.float64],
    training: Training,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (hidden, features) and (experts, hidden + 1) of one network."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    x = torch.tensor(inputs, dtype=torch.float32)
    cost = torch.tensor(costs, dtype=torch.float32)
    share = torch.tensor(weight / weight.sum(), dtype=torch.float64)
    inner = torch.nn.Linear(len(FEATURES), training.hidden, bias=False)
    outer = torch.nn.Linear(training.hidden, costs.shape[1])
    torch.nn.init.normal_(inner.weight, std=0.5 / len(FEATURES) ** 0.5)
    torch.nn.init.zeros_(outer.weight)
    parameters = [*inner.parameters(), *outer.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
    for _ in range(training.steps):
        batch = torch.multinomial(share, 1024, replacement=True)
        noisy = x[batch] + training.noise * torch.randn(len(batch), x.shape[1])
        noisy[:, 0] = 1.0
        logits = outer(torch.tanh(inner(noisy)))
        chance = torch.softmax(logits, dim=1)
        entropy = -(chance * torch.log(chance + 1e-9)).sum(1)
        loss = (chance * cost[batch]).sum(1).mean() - 0.01 * entropy.mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return inner.weight.double().numpy(), torch.cat([outer.weight, outer.bias[:, None]], 1).double().numpy()
