"""Behaviour cloning: a network learns to act like a policy of the table.

The policy plays in `InferMax-v0` with itself as the environment's `base`; the network learns the likelihood of its
actions. Then the network plays, and the policy says at every turn what it would have done (DAgger; Ross et al., 2011),
so that the network also knows the states that its own mistakes lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.play import greedy_decider
from infermax_gym.engine import Policy
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from infermax_gym.streams import stream

Report = Callable[[int, float, float], None]
"""Called after every epoch with its number, the mean loss and the share of actions that agree."""


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """What a teacher did.

    Attributes:
        observations: (n, N) float32.
        masks: (n, A) bool.
        actions: (n,) int64.
    """

    observations: NDArray[np.float32]
    masks: NDArray[np.bool_]
    actions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.actions)

    def joined(self, other: Demonstrations) -> Demonstrations:
        """Both, one after the other."""
        return Demonstrations(
            np.concatenate((self.observations, other.observations)),
            np.concatenate((self.masks, other.masks)),
            np.concatenate((self.actions, other.actions)),
        )


def demonstrate(
    teacher: Policy,
    config: EnvConfig,
    num_decisions: int,
    *,
    seed: int,
    student: ScorerNetwork | None = None,
) -> Demonstrations:
    """Collect a teacher's decisions.

    Args:
        teacher: a policy whose decisions the environment can express (see `PolicyTeacher`).
        config: where episodes come from; its `base` should be the teacher.
        num_decisions: how many.
        seed: of the episodes.
        student: plays in the teacher's place, which says what it would have done at the beginning of each turn (in
            the middle of a turn, as long as the student follows it).
    """
    env = InferMaxEnv(config, flat=True)
    guide = PolicyTeacher(teacher, config.layout)
    decide = None if student is None else greedy_decider(student)
    seen: list[tuple[NDArray[np.float32], NDArray[np.bool_], int]] = []
    observation, _ = env.reset(seed=seed)
    following = True  # the student has done what the teacher planned in this turn
    while len(seen) < num_decisions:
        mask = env.action_masks()
        action = -1
        if following:
            try:
                action = guide.action(env)
            except LookupError:  # not visible: the turn goes on without it
                following = False
        if following:
            seen.append((observation, mask, action))
        taken = action if decide is None and following else _choose(decide, observation, mask)
        following = following and taken == action
        if taken < config.layout.num_chunk_budgets:  # RUN: a new turn begins
            guide.reset()
            following = True
        observation, _, terminated, truncated, _ = env.step(taken)
        if terminated or truncated:
            guide.reset()
            following = True
            observation, _ = env.reset()
    observations, masks, actions = zip(*seen, strict=True)
    return Demonstrations(np.array(observations, np.float32), np.array(masks), np.array(actions, np.int64))


def _choose(decide: object, observation: NDArray[np.float32], mask: NDArray[np.bool_]) -> int:
    if callable(decide):
        return int(decide(observation[None], mask[None].astype(np.int8))[0])
    return int(mask.argmax())


def clone(
    network: ScorerNetwork,
    data: Demonstrations,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 2e-3,
    batch_size: int = 512,
    report: Report | None = None,
) -> float:
    """Fit a network to demonstrations; returns the share of actions in the last epoch that agreed greedily.

    Forced decisions, where a single action is legal, teach nothing and are left out.

    Args:
        network: adjusted in place.
        data: what to imitate.
        epochs: passes over the data; the learning rate falls to zero over them.
        seed: of the order of the batches, from its "policy" stream.
        learning_rate: at the beginning.
        batch_size: decisions of a step.
        report: called after every epoch.
    """
    free = np.flatnonzero(data.masks.sum(1) > 1)
    rng = stream(seed, "policy")
    weights = [w for name, w in network.named_parameters() if not name.startswith("value_head")]
    optimizer = torch.optim.Adam(weights, learning_rate)
    steps = max(1, epochs * -(-len(free) // batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1.0 - step / steps))
    agreement = 1.0
    for epoch in range(epochs):
        losses, agreed = 0.0, 0
        order = rng.permutation(free)
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            actions = torch.from_numpy(data.actions[batch])
            log_probs = network.log_probs(
                torch.from_numpy(data.observations[batch]), torch.from_numpy(data.masks[batch])
            )
            loss = -log_probs.gather(1, actions.unsqueeze(1)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses += float(loss.detach()) * len(batch)
            agreed += int((network.greedy(log_probs.detach()) == actions).sum())
        agreement = agreed / max(len(free), 1)
        if report:
            report(epoch + 1, losses / max(len(free), 1), agreement)
    return agreement


def imitate(
    teacher: Policy,
    config: EnvConfig,
    *,
    seed: int = 0,
    num_decisions: int = 20_000,
    rounds: int = 2,
    epochs: int = 10,
    width: int = 32,
    report: Report | None = None,
) -> ScorerNetwork:
    """Clone a teacher from scratch.

    Args:
        teacher: the policy.
        config: where episodes come from; its `base` is set to the teacher.
        seed: of everything.
        num_decisions: demonstrations of the teacher, and of every further round under the student.
        rounds: 1 is plain behaviour cloning; every further one adds states that the student reaches.
        epochs: passes over all demonstrations in each round.
        width: of the network.
        report: called after every epoch.
    """
    config = config.changed(base=teacher)
    torch.manual_seed(int(stream(seed, "policy").integers(2**31)))
    network = ScorerNetwork(config.layout, config.level_shares, width)
    data = demonstrate(teacher, config, num_decisions, seed=seed)
    network.adapt(torch.from_numpy(data.observations))
    clone(network, data, epochs=epochs, seed=seed, report=report)
    for k in range(1, rounds):
        more = demonstrate(teacher, config, num_decisions, seed=seed + k, student=network)
        data = data.joined(more)
        clone(network, data, epochs=epochs, seed=seed + k, report=report)
    return network
