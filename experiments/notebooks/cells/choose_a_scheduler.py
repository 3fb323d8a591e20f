"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # Choose a scheduler
#
# You have a model, a GPU, traffic and limits. There is no scheduler that is best at everything, but there is one for
# your limits. In this example a smaller token budget, which is a flag, gains as much goodput as another policy.
#
# The comparison has three steps: a load that you expect, the flags that your engine has, and the most traffic that
# it carries.
#
# You need `pip install '.[viewer]'`. On a command line the same three steps are `infermax bench`, `infermax tune`
# and `infermax capacity`.

# %% tags=["parameters"]
NUM_REQUESTS = 3000  # of each draw of the traffic
NUM_SEEDS = 3

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import infermax_gym as ig
from infermax_gym.cost.engines import find_engine
from infermax_gym.evaluation import Demand, FleetContender, find_capacity

named = find_engine("llama-3.1-8b@h100")
engine = ig.EngineConfig(cost=named.cost, **named.sizes)
slo = ig.Slo(ttft_s=2.0, tpot_s=0.05)
print(
    f"{named.name}: {engine.num_kv_tokens:,} KV tokens, {engine.max_num_batched_tokens:,} tokens per iteration"
)

# %% [markdown]
# ## 1. At the load that you expect
#
# Conversations like Azure's arrive at 20 per second. A request is in time if its first token comes within 2 s,
# and further ones every 50 ms on average. Goodput counts the requests in time, per second.
#
# `vllm`, `sglang-fcfs` and `trt-no-evict` are what engines do today. The second and third are told the longest
# output that a request may have; nobody knows its true length.

# %%
names = (
    "vllm",
    "sglang-fcfs",
    "trt-no-evict",
    "sarathi",
    "hrrn",
    "spf-headroom",
    "spf-aging-headroom",
)
policies = {name: ig.SCHEDULERS[name] for name in names}
traffic = ig.WorkloadSpec("azure-conv", first=NUM_REQUESTS, rate=20.0)
runs = ig.evaluate(ig.Scenario(traffic, engine, slo), policies, seeds=range(NUM_SEEDS))


def mean(name: str, figure: str) -> float:
    return float(np.mean(runs.values(name, figure)))


print("policy               goodput  mean latency  99th percentile of TTFT")
for name in sorted(names, key=lambda name: -mean(name, "goodput_per_s")):
    goodput, latency_s, p99_s = (
        mean(name, figure) for figure in ("goodput_per_s", "latency_s.mean", "ttft_s.p99")
    )
    print(f"{name:20} {goodput:5.1f}/s {latency_s:11.1f} s {p99_s:22.1f} s")

# %% [markdown]
# A single best policy would be in the lower right corner of this picture. There is none: whoever serves most
# requests in time makes a few wait for a minute. The line joins the policies that no other one beats in both.

# %%
figure, axes = plt.subplots(
    num="Tail of TTFT over goodput, a point for each policy",
    figsize=(6.4, 4),
    layout="constrained",
)
points = {name: (mean(name, "goodput_per_s"), mean(name, "ttft_s.p99")) for name in names}
best = [
    name
    for name, (goodput, tail_s) in points.items()
    if not any(
        g >= goodput and s <= tail_s and (g, s) != (goodput, tail_s) for g, s in points.values()
    )
]
front = sorted(points[name] for name in best)
axes.plot(
    *zip(*front, strict=True), color="#c9d3e6", linewidth=6, solid_capstyle="round", zorder=1
)
for name, (goodput, tail_s) in points.items():
    axes.scatter(
        goodput, tail_s, s=45, color="#3657a8" if name in best else "#b9b9b9", zorder=2
    )
    beside = {"sarathi": (4, -14), "hrrn": (2, 8), "vllm": (-16, -15)}.get(name, (7, -3))
    axes.annotate(
        name, (goodput, tail_s), xytext=beside, textcoords="offset points", fontsize=9
    )
axes.set(
    xlabel="goodput, requests per second (more is better)",
    ylabel="99th percentile of TTFT, s (less is better)",
)
axes.set(
    yscale="log",
    yticks=[1, 3, 10, 30, 100],
    yticklabels=["1", "3", "10", "30", "100"],
    ylim=(1, 150),
)
axes.margins(x=0.25)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## 2. Which flags?
#
# Before another policy, try what your engine already has. `max_num_batched_tokens` bounds the tokens of an
# iteration. A small budget keeps the gaps between tokens short. A large one lets prompts through sooner.
#
# We choose on some draws of the traffic, and judge on others. Whoever judges on the draws that they chose by
# finds their own luck.

# %%
BUDGETS = (512, 1024, 2048, 4096, 8192)
chosen_by, judged_by = range(100, 100 + NUM_SEEDS), range(200, 200 + NUM_SEEDS)


def goodput(budget: int, seeds: range) -> float:
    flags = dataclasses.replace(engine, max_num_batched_tokens=budget)
    found = ig.evaluate(
        ig.Scenario(traffic, flags, slo), {"vllm": ig.POLICIES["vllm"]}, seeds=seeds
    )
    return float(np.mean(found.values("vllm", "goodput_per_s")))


tried = {budget: goodput(budget, chosen_by) for budget in BUDGETS}
budget = max(tried, key=lambda budget: tried[budget])
print("vllm with a budget of", {budget: round(value, 1) for budget, value in tried.items()})
print(
    f"the best is {budget}; on other draws it gives {goodput(budget, judged_by):.1f} requests per second in time,"
)
print(
    f"and the default of {engine.max_num_batched_tokens:,} gives {goodput(engine.max_num_batched_tokens, judged_by):.1f}"
)

# %% [markdown]
# `infermax tune` does this for all flags at once, with intervals, and prints the `vllm serve` line.
#
# ## 3. How much traffic does it carry?
#
# The capacity is the highest rate at which 90 % of the requests are in time. Every policy faces the same
# requests, only closer together or further apart.

# %%
demand = Demand(
    lambda seed, replicas: ig.make_workload("azure-conv", NUM_REQUESTS, seed=seed),
    engine,
    slo,
    seeds=range(NUM_SEEDS),
)
small_budget = dataclasses.replace(engine, max_num_batched_tokens=budget)
asked = {
    "vllm": ("vllm", engine),
    f"vllm, budget {budget:,}": ("vllm", small_budget),
    "hrrn": ("hrrn", engine),
    "spf-headroom": ("spf-headroom", engine),
    f"spf-headroom, budget {budget:,}": ("spf-headroom", small_budget),
}
capacities = {}
for label, (name, config) in asked.items():
    contender = FleetContender(ig.POLICIES[name], ig.ROUTERS["round-robin"], 1)
    found = find_capacity(contender, dataclasses.replace(demand, config=config), tolerance=0.03)
    capacities[label] = found.rate_per_s
    print(f"{label:28} {found.rate_per_s:5.1f} requests per second")

# %%
figure, axes = plt.subplots(
    num="Capacity of each policy", figsize=(6.4, 2.6), layout="constrained"
)
labels = sorted(capacities, key=lambda label: capacities[label])
bars = axes.barh(labels, [capacities[label] for label in labels], color="#3657a8", height=0.6)
axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=9)
axes.set(xlabel="requests per second with 90 % of them in time")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## What to take home
#
# - Look at goodput and at the tail together. A policy can buy the one with the other.
# - A flag that you have may be worth as much as a policy that you do not have.
# - Capacity is what you pay for: a quarter more of it is a fifth fewer GPUs.
#
# Next: your own trace instead of `azure-conv`, a CSV file ([formats](../../docs/workloads.md)); your own server's
# speed ([calibrate](calibrate_to_my_server.ipynb)); the decision in words
# ([guide](../../docs/guides/choose-a-scheduler.md)).
