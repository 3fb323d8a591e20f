"""PPO in one file, with masks, simulated time and SAME_STEP autoreset handled: a place to start changing things.

python examples/masked_ppo_loop.py --steps 20000
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from infermax_gym.envs import InferMaxVectorEnv

LANES, ROLLOUT, EPOCHS, CLIP, TAU_S, SCALE = 16, 64, 4, 0.2, 20.0, 0.02


class Agent(nn.Module):
    """Two small networks: logits of the legal actions, and a value."""

    def __init__(self, num_inputs: int, num_actions: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, num_actions))
        self.critic = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 1))

    def choice(self, observation: Tensor, mask: Tensor) -> torch.distributions.Categorical:
        """The distribution over legal actions."""
        logits = self.actor(observation).masked_fill(~mask, -1e8)
        return torch.distributions.Categorical(logits=logits)


def advantages(rewards: Tensor, values: Tensor, last: Tensor, dones: Tensor, dt_s: Tensor) -> Tensor:
    """Generalised advantages with the discount exp(-dt / tau) of each step; all (T, n), `last` (n,)."""
    result = torch.zeros_like(rewards)
    ahead, following = torch.zeros_like(last), last
    for t in reversed(range(len(rewards))):
        gamma = torch.exp(-dt_s[t] / TAU_S) * (1.0 - dones[t])
        ahead = rewards[t] + gamma * following - values[t] + gamma * 0.95 * ahead
        result[t], following = ahead, values[t]
    return result


def main() -> None:
    """Train for a moment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    env = InferMaxVectorEnv(LANES, flat=True, num_requests=40, max_decisions_per_request=25)
    raw, info = env.reset(seed=0)
    observation, mask = torch.from_numpy(raw), torch.from_numpy(info["action_mask"] != 0)
    agent = Agent(raw.shape[1], mask.shape[1])
    optimizer = torch.optim.Adam(agent.parameters(), 3e-4)
    returns, ended, served, sums = [], [], [], np.zeros(LANES)
    for _ in range(max(options.steps // (LANES * ROLLOUT), 1)):
        steps = []
        for _ in range(ROLLOUT):
            with torch.no_grad():
                chosen = agent.choice(observation, mask)
                action = chosen.sample()
                log_p, value = chosen.log_prob(action), agent.critic(observation).squeeze(-1)
            raw, reward, terminated, truncated, info = env.step(action.numpy())
            done = terminated | truncated
            sums += reward
            returns += sums[done].tolist()
            sums[done] = 0.0
            for i in np.flatnonzero(done):  # paid in full, cut short or not: nothing is left to bootstrap
                ended.append(info["final_info"]["metrics"][i]["latency_s"]["mean"])
                served.append(info["finished_by_agent"][i])
            reward = reward * SCALE
            numbers = [torch.from_numpy(x.astype(np.float32)) for x in (reward, done, info["dt_s"])]
            steps.append((observation, mask, action, log_p, value, *numbers))
            observation, mask = torch.from_numpy(raw), torch.from_numpy(info["action_mask"] != 0)
        obs, masks, actions, old, values, rewards, dones, dt_s = (torch.stack(x) for x in zip(*steps, strict=True))
        with torch.no_grad():
            gain = advantages(rewards, values, agent.critic(observation).squeeze(-1), dones, dt_s)
        target = (gain + values).flatten()
        gain = ((gain - gain.mean()) / (gain.std() + 1e-8)).flatten()
        for _ in range(EPOCHS):
            chosen = agent.choice(obs.flatten(0, 1), masks.flatten(0, 1))
            ratio = torch.exp(chosen.log_prob(actions.flatten()) - old.flatten())
            policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
            value_loss = (agent.critic(obs.flatten(0, 1)).squeeze(-1) - target).pow(2).mean()
            loss = policy_loss + 0.5 * value_loss - 0.01 * chosen.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    print(f"{len(returns)} episodes ended")
    if returns:
        print(f"the last ones: return {np.mean(returns[-50:]):.1f}, mean latency {np.mean(ended[-50:]):.2f} s")
        print(f"finished by the agent {np.mean(served[-50:]):.1f} of 40 requests, the others by the fallback policy")


if __name__ == "__main__":
    main()
