"""What PPO's rewards cost: decisions per second on saturated chat, with and without a base-policy rollout.

    python benchmarks/base_rollout.py

Two players, sampling their actions: the shipped network `conv-ppo`, which half the time does what the policy would do,
and a fresh one. "simulated anew": as if nothing were known at the next state; "followed" is how training does
it (`infermax_gym.agents.base_rollout`). Wall-clock time, since a base-policy rollout uses two cores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from infermax_gym.agents import load_agent
from infermax_gym.agents.base_rollout import BaseRollout
from infermax_gym.agents.cards import ZOO
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.ppo import PpoSettings
from infermax_gym.agents.recipes import environment, learner
from infermax_gym.agents.scenario import SATURATED_CHAT
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs.scheduling.config import EnvConfig

BASE_ROLLOUTS = ("none", "simulated anew", "followed")
_WARM_UP = 30


def play(
    network: ScorerNetwork, config: EnvConfig, base_rollout: str, num_steps: int, seed: int
) -> tuple[float, float]:
    """Decisions per second, and of how many of them the policy's run to the end was simulated."""
    settings = PpoSettings()
    shaping = None if base_rollout == "none" else settings.shaping()
    env = InferMaxVecEnv(settings.num_lanes, config, seed=seed, base_rollout=shaping)
    observation = env.reset()
    torch.manual_seed(seed)
    before = 0
    for step in range(_WARM_UP + num_steps):
        if step == _WARM_UP:
            before = 0 if shaping is None else shaping.num_runs
            began = time.perf_counter()
        with torch.no_grad():
            masks = torch.from_numpy(env.action_masks())
            log_probs = network.log_probs(torch.from_numpy(np.asarray(observation)), masks)
            actions = torch.distributions.Categorical(logits=log_probs).sample().numpy()
        if base_rollout == "simulated anew":
            assert isinstance(shaping, BaseRollout)
            shaping.forget()
        observation, _, _, _ = env.step(actions)
    decisions = num_steps * settings.num_lanes
    runs = 0 if shaping is None else shaping.num_runs - before
    return decisions / (time.perf_counter() - began), runs / decisions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="decisions of each of the 32 lanes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = learner(environment(SATURATED_CHAT, "spf-headroom"), SATURATED_CHAT)
    trained = load_agent(ZOO / "conv-ppo.safetensors").network
    assert trained is not None
    torch.manual_seed(0)
    fresh = ScorerNetwork(config.layout, config.level_shares)
    table = Table(title="Decisions per second with a base-policy rollout", title_justify="left")
    for name in ("player", "base_rollout", "decisions per s", "simulated to the end"):
        table.add_column(name, justify="left" if name in ("player", "base_rollout") else "right")
    for name, network in (("conv-ppo", trained), ("fresh network", fresh)):
        for base_rollout in BASE_ROLLOUTS:
            rate, share = play(network, config, base_rollout, options.steps, seed=0)
            table.add_row(name, base_rollout, f"{rate:,.0f}", "" if base_rollout == "none" else f"{share:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
