"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # My first agent
#
# An agent schedules the requests of an engine: it admits, preempts and runs. In about a minute it learns to halve the latency of random play, and to beat the rules
# that engines use. This notebook shows the loop, the rivals, the training, and what a
# minute does not reach.
#
# You need `pip install '.[agents,viewer]'`.

# %% tags=["parameters"]
NUM_DECISIONS = 65_536  # to learn from
NUM_TEST_EPISODES = 24

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecNormalize

import infermax_gym as ig
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs import TASKS, TEST_SEEDS

TASK = "InferMaxLongContext-v0"
FIRST_TEST_SEED = TEST_SEEDS[0]
torch.set_num_threads(1)

# %% [markdown]
# ## 1. The loop
#
# Fifty long requests come to Llama-3.1-8B on one H200. The reward is minus the seconds that requests spend in the
# system. The mask says which actions are legal. Here is random legal play.

# %%
env = gym.make(TASK)
rng = np.random.default_rng(0)
observation, info = env.reset(seed=FIRST_TEST_SEED)
total, done = 0.0, False
while not done:
    action = rng.choice(np.flatnonzero(observation["action_mask"]))
    observation, reward, terminated, truncated, info = env.step(action)
    total += float(reward)
    done = terminated or truncated
latency_s = info["metrics"]["latency_s"]["mean"]
print(
    f"return {total:.0f}, {info['metrics']['num_finished']} requests finished, mean latency {latency_s:.1f} s"
)

# %% [markdown]
# The return is minus the sum of all latencies: minus 50 times the mean.
#
# ## 2. The rivals
#
# A rule of the table plays the same episodes. `sarathi` admits in order of arrival, `shortest-prompt-first` says
# what it does, and `trt-sjf` is the best rule of the table on this task that needs no predictions.


# %%
def rule_latency_s(name: str) -> float:
    """Mean latency of a rule over the test episodes."""
    values = []
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + NUM_TEST_EPISODES):
        env.reset(seed=seed)
        episode = (
            env.unwrapped.run.episode
        )  # the requests and the engine that the agent faces too
        values.append(
            float(
                ig.simulate(
                    episode.workload, episode.engine, ig.POLICIES[name]
                ).latency_s.mean()
            )
        )
    return float(np.mean(values))


rules = {name: rule_latency_s(name) for name in ("sarathi", "shortest-prompt-first", "trt-sjf")}
for name, value in rules.items():
    print(f"{name:22} {value:5.1f} s mean latency")

# %% [markdown]
# ## 3. Train
#
# MaskablePPO of sb3-contrib, as it comes. Sixteen episodes run side by side. Rewards are scaled by their spread,
# observations are not touched. Every so often the agent plays the test episodes greedily, without learning from
# them.


# %%
def play(model: MaskablePPO | None) -> float:
    """Mean latency over the test episodes: of greedy play, or of random legal play without a model."""
    lanes = InferMaxVecEnv(NUM_TEST_EPISODES, seed=FIRST_TEST_SEED, metrics=True, **TASKS[TASK])
    observation, found, rng = lanes.reset(), {}, np.random.default_rng(0)
    while len(found) < NUM_TEST_EPISODES:
        masks = lanes.action_masks()
        if model is None:
            actions = (rng.random(masks.shape) * masks).argmax(axis=1)
        else:
            actions, _ = model.predict(observation, action_masks=masks, deterministic=True)
        observation, _, dones, infos = lanes.step(np.asarray(actions))
        for i in np.flatnonzero(dones).tolist():
            found.setdefault(i, infos[i]["metrics"]["latency_s"]["mean"])
    return float(np.mean(list(found.values())))


lanes = InferMaxVecEnv(16, seed=0, **TASKS[TASK])
training = VecNormalize(lanes, norm_obs=False, norm_reward=True, gamma=0.99)
model = MaskablePPO(
    "MlpPolicy", training, n_steps=128, batch_size=512, n_epochs=6, learning_rate=1e-3, seed=0
)
curve = [(0, play(model))]
exploring = []
while model.num_timesteps < NUM_DECISIONS:
    model.learn(min(8_192, NUM_DECISIONS), reset_num_timesteps=False)
    curve.append((model.num_timesteps, play(model)))
    exploring.append(
        (model.num_timesteps, -np.mean([episode["r"] for episode in model.ep_info_buffer]) / 50)
    )
    print(
        f"{model.num_timesteps:6,} decisions: {curve[-1][1]:5.1f} s greedy, {exploring[-1][1]:5.1f} s while it explores"
    )

# %%
figure, axes = plt.subplots(
    num="Learning curve beside the rules", figsize=(7, 4), layout="constrained"
)
axes.plot(
    *zip(*curve, strict=True),
    color="#3657a8",
    linewidth=2.4,
    marker="o",
    markersize=4,
    label="agent, greedy",
)
axes.plot(
    *zip(*exploring, strict=True), color="#9db1dd", linewidth=1.6, label="agent, exploring"
)
for (name, value), style in zip(
    {"random play": play(None), **rules}.items(), (":", "--", "-.", "-"), strict=True
):
    axes.axhline(value, color="#8a8a8a", linewidth=1.2, linestyle=style, label=name)
axes.set(
    xlabel="decisions learned from", ylabel="mean latency, s (less is better)", ylim=(0, 60)
)
axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## 4. What a minute reaches, and what it does not
#
# - The agent learns to hold back. Each running request slows all others, and the rules admit whoever fits.
# - Greedy play is poor for a while: the hill in the curve. Do not judge an agent before 70,000 decisions.
# - This is one training seed on one task with one engine. [Ten
#   seeds](../../docs/environments.md#a-task-that-teaches-infermaxlongcontext-v0) are in the documentation.
# - The task is made to be learned first. A rule with a tuned limit on running requests comes close: 14.8 s there.
# - On other traffic and engines this agent knows nothing. What learning gains in general is in
#   [results](../../docs/results.md).
#
# Next: `python train.py` evolves the knobs of a rule, and compares on slices of a trace that it has not seen.
# [Train my first agent](../../docs/guides/first-agent.md) has both ways, and your own loop.
