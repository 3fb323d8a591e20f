"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # Your own policy
#
# A policy is a setting of knobs. Start from one that exists, change what you want, and compare it on the same
# requests. Two knobs and an order are enough here to halve the time of most requests. The longest pay a little.
#
# Each run below has the same requests and the same small KV memory, so memory decides.
#
# You need `pip install '.[viewer]'`, for the picture.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import infermax_gym as ig

NUM_REQUESTS = 400
workload = ig.make_workload("azure-conv", NUM_REQUESTS, seed=0)
engine = ig.EngineConfig(num_kv_tokens=40_000)

# %% [markdown]
# `hrrn` takes the waiting request with the highest response ratio: who has waited long beside what it needs. Ours does
# that too. It also keeps 50 KV tokens free for each running request, and runs at most 24 requests.

# %%
hrrn = ig.POLICIES["hrrn"]
mine = dataclasses.replace(hrrn, name="mine", headroom_tokens=50.0, max_running=24)

# %%
results = {}
print("policy      mean   median   99th percentile   preemptions")
for policy in (ig.POLICIES["vllm"], ig.POLICIES["sarathi"], hrrn, mine):
    result = results[policy.name] = ig.simulate(workload, engine, policy)
    mean_s, median_s = np.mean(result.latency_s), np.median(result.latency_s)
    tail_s, count = np.percentile(result.latency_s, 99), result.num_preemptions
    print(f"{policy.name:8} {mean_s:5.1f} s {median_s:6.1f} s {tail_s:15.1f} s {count:13}")

# %%
figure, axes = plt.subplots(
    num="Latencies of all requests under each policy", figsize=(6.4, 3.4), layout="constrained"
)
for (name, result), colour in zip(
    results.items(), ("#b9b9b9", "#e07a3f", "#9db1dd", "#3657a8"), strict=True
):
    axes.plot(
        np.linspace(0, 100, NUM_REQUESTS),
        np.sort(result.latency_s),
        color=colour,
        linewidth=2,
        label=name,
    )
axes.set(xlabel="share of the requests, %", ylabel="latency, s", ylim=0)
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# One seed is one draw of the traffic. `infermax bench --seeds 5` gives the interval.
#
# What is no setting of knobs is a class with one method: [write a policy](../../docs/guides/write-a-policy.md).
