"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # A five-minute rule for the KV cache
#
# A conversation pauses. Should its KV stay in memory, or go and be computed anew when the user comes back? In a full
# GPU it is worth keeping for half a minute to three minutes, in host memory for hours.
#
# Databases have an old rule for such questions: keep a page if it is used again within five minutes (Gray and
# Putzolu 1987). The newest version of the INFERMAX paper (arXiv 2411.07447v4) brings the rule to KV caches. Here
# we derive it from our cost models. The figures below are ours, not the paper's.
#
# You need `pip install '.[viewer]'`.

# %% tags=["parameters"]
NUM_CLIENTS = 2_000

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import infermax_gym as ig
from infermax_gym.cost.engines import find_engine
from infermax_gym.cost.roofline.models import known_models

NAMES = (
    "llama-3.1-8b@a100",
    "llama-3.1-8b@h100",
    "llama-3.1-8b@h200",
    "llama-3.1-70b@h100x4/fp8",
    "qwen3-32b@h100x2",
)
engines = {name: find_engine(name) for name in NAMES}

# %% [markdown]
# ## Two ways to pay
#
# - **Keep** n tokens for T seconds. They take n of the M tokens that fit. If memory is what is scarce, that is n
#   / M of the engine, for T seconds.
# - **Recompute** them. That is the whole engine, for as long as a prefill of n tokens takes.
#
# Both are paid in seconds of the same GPU, so its price cancels. They cost the same at the break-even interval
#
# > T = seconds of the prefill × M / n
#
# Come back sooner, and keeping was cheaper. Come back later, and it was not.


# %%
def prefill_s(engine: object, num_tokens: int) -> float:
    """Seconds in which an engine computes a context anew, in chunks of its token budget."""
    total, done = 0.0, 0
    while done < num_tokens:
        chunk = min(engine.max_num_batched_tokens, num_tokens - done)
        total += engine.cost.seconds(prefills=[(chunk, done)])
        done += chunk
    return total


def break_even_s(engine: object, num_tokens: int) -> float:
    return prefill_s(engine, num_tokens) * engine.num_kv_tokens / num_tokens


print(
    "engine                     KV tokens   break-even at 1,000   at 8,000   at 32,000 tokens"
)
for name, engine in engines.items():
    at = [break_even_s(engine, n) for n in (1_000, 8_000, 32_000)]
    print(f"{name:26} {engine.num_kv_tokens:9,} {at[0]:16.0f} s {at[1]:11.0f} s {at[2]:9.0f} s")

# %%
figure, axes = plt.subplots(
    num="Break-even interval over the length of the context",
    figsize=(6.8, 4),
    layout="constrained",
)
lengths = np.unique(np.geomspace(32, 65_536, 60).astype(int))
for name, engine in engines.items():
    fits = lengths[lengths <= engine.num_kv_tokens]
    axes.plot(fits, [break_even_s(engine, int(n)) for n in fits], linewidth=2, label=name)
axes.set(
    xscale="log", yscale="log", xlabel="tokens of the context", ylabel="break-even interval, s"
)
axes.set_ylim(5, 1500)
axes.axhline(300, color="#9a9a9a", linestyle=":", linewidth=1)
axes.annotate(
    "five minutes",
    (200, 300),
    xytext=(0, 4),
    textcoords="offset points",
    color="#666666",
    fontsize=9,
)
axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# So in a GPU whose memory is full the rule is one of seconds, not of minutes. The curves have three parts:
#
# - **Short contexts** are worth keeping for longer. A prefill has a fixed cost, and few tokens share it.
# - **In the middle** every token costs the same on both sides, and the length does not matter.
# - **Long contexts** are worth more again: attention makes their prefill grow faster than their memory.
#
# ## What is memory worth?
#
# The rule takes for granted that a tenth of the memory is worth a tenth of the throughput. Is it? We occupy a
# tenth, and look how much longer the others take. `vllm-watermark` serves them, with little preemption.


# %%
def lost_share(engine: object, share: float, prompt: int, output: int) -> float:
    """Share of the throughput that is lost if a share of the KV memory is occupied."""
    workload = ig.Workload(
        np.zeros(NUM_CLIENTS), np.full(NUM_CLIENTS, prompt), np.full(NUM_CLIENTS, output)
    )
    full = ig.EngineConfig(cost=engine.cost, **engine.sizes)
    less = dataclasses.replace(full, num_kv_tokens=int((1 - share) * full.num_kv_tokens))
    spans = [
        ig.simulate(workload, config, ig.POLICIES["vllm-watermark"]).finish_s.max()
        for config in (full, less)
    ]
    return 1.0 - float(spans[0] / spans[1])


engine = engines["qwen3-32b@h100x2"]
print(f"{engine.name}, {NUM_CLIENTS:,} requests at once, a tenth of the memory occupied")
print("prompt  output   throughput lost   break-even at 8,000 tokens, so paid")
for prompt, output in ((500, 100), (1_000, 500), (1_000, 2_000), (2_000, 4_000)):
    lost = lost_share(engine, 0.1, prompt, output)
    print(
        f"{prompt:6,} {output:7,} {lost:16.1%} {break_even_s(engine, 8_000) * 0.1 / lost:26.0f} s"
    )

# %% [markdown]
# It is worth less. Iterations with fewer requests are also shorter, and prompts cost the same in any company. The
# longer the answers, the more a token of memory is worth. With this rent the interval is 40 seconds to almost three minutes here,
# where the simple rule says 18 seconds. And where memory is not full, keeping costs nothing.
#
# ## A second floor: host memory
#
# KV can also wait in the memory of the host. That is cheap, so here the price does not cancel. We take 3 US
# dollars per GB and a life of four years for memory, the table's price for the GPU, and 40 GB/s for the way back.

# %%
DOLLARS_PER_BYTE_S = 3.0 / 1e9 / (4 * 365 * 24 * 3600)
BYTES_PER_S = 40e9


def kv_bytes(engine: object) -> int:
    """Bytes of KV of a token: keys and values of all layers."""
    shape, number_bytes = known_models()[engine.model], 1 if engine.kv_dtype == "fp8" else 2
    return 2 * number_bytes * shape.num_layers * shape.num_kv_heads * shape.head_dim


print("8,000 tokens               compute anew   fetch   worth keeping on the host for")
for name, engine in engines.items():
    dollars_per_s = engine.price_usd_per_gpu_hour * engine.tensor_parallel / 3600
    num_bytes = 8_000 * kv_bytes(engine)
    anew_s, fetch_s = prefill_s(engine, 8_000), num_bytes / BYTES_PER_S
    hours = (anew_s - fetch_s) * dollars_per_s / (num_bytes * DOLLARS_PER_BYTE_S) / 3600
    print(f"{name:26} {anew_s:11.2f} s {fetch_s:5.2f} s {hours:20,.1f} hours")

# %% [markdown]
# ## The rule
#
# | where the KV is | keep it if it is used again within |
# |---|---|
# | GPU, memory full | prefill seconds × M / n: 10 to 90 s here; a few times that, as memory is worth less than its share |
# | GPU, memory free | any time: nobody else wants it |
# | host memory | hours |
#
# So five minutes is no bad guess for a GPU, if a generous one. A user who comes back after half an hour is beyond
# it, and well within the hours of host memory. That is the case for KV that moves to the host.
#
# Not in here: a user's waiting. A prefill also delays the first token. Where that counts more than GPU time, keep
# for longer. Requests that share a prefix divide the rent between them.
#
# Next: [prefix caching](../../docs/prefix-caching.md) in the simulator, [costs](../../docs/costs.md) of all
# engines.
