"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # Your own policy
#
# A policy is a setting of knobs. Start from one that exists, change what you want, and compare it on the same requests.
# Each run below has the same requests and the same small KV memory, so memory decides.

# %%
import dataclasses

import numpy as np

import infermax_gym as ig

NUM_REQUESTS = 400
workload = ig.make_workload("azure-conv", NUM_REQUESTS, seed=0)
engine = ig.EngineConfig(num_kv_tokens=40_000)

# %% [markdown]
# This policy keeps 50 KV tokens free for each running request, and runs at most 32 requests.

# %%
mine = dataclasses.replace(ig.POLICIES["sarathi"], name="mine", headroom_tokens=50.0, max_running=32)

# %%
for policy in (ig.POLICIES["vllm"], ig.POLICIES["sarathi"], mine):
    result = ig.simulate(workload, engine, policy)
    latency_s = result.finish_s - workload.arrival_s
    print(f"{policy.name:8} mean {np.mean(latency_s):7.2f} s   99th percentile {np.percentile(latency_s, 99):7.2f} s")

# %% [markdown]
# One seed is one draw of the traffic. `infermax bench --seeds 5` gives the interval.
