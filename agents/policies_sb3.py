"""`ScorerNetwork` as a policy of sb3-contrib's MaskablePPO."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from torch import Tensor

from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.envs.scheduling.config import EnvConfig

Masks = Any  # arrays or tensors, (B, A)


class MaskedChoice:
    """A distribution over actions given by log-probabilities; what MaskablePPO asks of a distribution."""

    def __init__(self, network: ScorerNetwork, log_probs: Tensor) -> None:
        self.network = network
        self.log_probs = log_probs

    def get_actions(self, deterministic: bool = False) -> Tensor:
        """(B,) sampled or greedy actions."""
        if deterministic:
            return self.network.greedy(self.log_probs)
        return torch.multinomial(self.log_probs.exp(), 1).squeeze(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) log-probabilities of actions."""
        return self.log_probs.gather(-1, actions.long().reshape(-1, 1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """(B,) entropies; illegal actions have none."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class ScorerPolicy(MaskableActorCriticPolicy):  # type: ignore[misc]
    """Actor and critic of one `ScorerNetwork` on flat observations.

    Args:
        observation_space: Box (N,).
        action_space: Discrete (A,).
        lr_schedule: learning rate.
        config: the environment; its slots and chunk budgets count.
        width: units of a hidden layer.
        **settings: of the base class.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Any,
        *,
        config: EnvConfig,
        width: int = 32,
        **settings: Any,
    ) -> None:
        self.config = config
        self.width = width
        super().__init__(observation_space, action_space, lr_schedule, **settings)

    def _build(self, lr_schedule: Any) -> None:
        self.network = ScorerNetwork(self.config.layout, self.config.level_shares, self.width)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "config": self.config, "width": self.width}

    def get_distribution(self, obs: Any, action_masks: Masks = None) -> Any:
        """The choice in observations (B, N)."""
        if action_masks is None:
            legal = torch.ones(len(obs), self.network.layout.num_actions, dtype=torch.bool)
        elif isinstance(action_masks, np.ndarray):
            legal = torch.from_numpy(action_masks.reshape(len(obs), -1).astype(bool))
        else:
            legal = action_masks.reshape(len(obs), -1) != 0
        return MaskedChoice(self.network, self.network.log_probs(obs, legal))

    def forward(  # type: ignore[override]
        self, obs: Tensor, deterministic: bool = False, action_masks: Masks = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B,), values (B, 1) and log-probabilities (B,)."""
        choice = self.get_distribution(obs, action_masks)
        actions = choice.get_actions(deterministic)
        return actions, self.predict_values(obs), choice.log_prob(actions)

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Masks = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values (B, 1), log-probabilities and entropies (B,)."""
        choice = self.get_distribution(obs, action_masks)
        return self.predict_values(obs), choice.log_prob(actions), choice.entropy()

    def predict_values(self, obs: Any) -> Tensor:
        """(B, 1) values."""
        return self.network.values(obs).unsqueeze(-1)
