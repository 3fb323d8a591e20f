"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # Calibrate to my server
#
# A cost model from a table is not your server. A log of a few hundred requests is enough to correct it: arrivals,
# lengths, first and last tokens. This notebook plays a server whose speed the simulator does not know. Before, the simulator is
# off by half; afterwards by a few percent.
#
# You need `pip install '.[viewer]'`. On a command line it is `infermax replay` and `infermax calibrate`.

# %% tags=["parameters"]
NUM_REQUESTS = 500

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import infermax_gym as ig
from infermax_gym.cost.engines import find_engine
from infermax_gym.evaluation import Demand, FleetContender, find_capacity
from infermax_gym.evaluation.calibrate import calibrate, first_half
from infermax_gym.evaluation.replay import compare, occupancy
from infermax_gym.workload.request_log import RequestLog

# %% [markdown]
# ## 1. A server, and its log
#
# The server runs Qwen3-32B on two H100. We pretend to know that, and no more. Its true cost differs from the
# table: each iteration takes 4 ms more, tokens cost a third more, attention a fifth less, and the network adds 60
# ms to each request. Only the log leaves this cell.

# %%
table = find_engine("qwen3-32b@h100x2")


def served(cost: ig.CostModel, requests: ig.Workload, network_s: float) -> ig.SimulationResult:
    """What vLLM does with requests that reach it a little after they were sent."""
    delayed = dataclasses.replace(requests, arrival_s=requests.arrival_s + network_s)
    result = ig.simulate(
        delayed, ig.EngineConfig(cost=cost, **table.sizes), ig.POLICIES["vllm"]
    )
    return dataclasses.replace(result, workload=requests)


def true_cost() -> ig.CostModel:
    factors = np.array(
        [1.0, 1.35, 1.0, 1.35, 1.35, 0.8, 0.8, 0.8, 0.8]
    )  # tokens and prefills; contexts and decodes
    scaled = tuple(
        tuple(tuple(form * factors) for form in np.array(term)) for term in table.cost.terms
    )
    more = (0.004, *([0.0] * 8))
    return dataclasses.replace(table.cost, name="my-server", terms=(*scaled, (more,)))


requests = ig.make_workload("azure-conv", NUM_REQUESTS, seed=3).with_rate(7.0)
truth = served(true_cost(), requests, 0.060)
log = RequestLog(requests, truth.first_scheduled_s, truth.first_token_s, truth.finish_s)
print(
    f"{len(log)} requests; mean TTFT {log.ttft_s.mean():.2f} s, mean latency {log.latency_s.mean():.1f} s"
)

# %% [markdown]
# Your own log is a CSV file, or what `vllm bench serve --save-result --save-detailed` writes.
# `infermax_gym.workload.request_log.read_request_log` reads both.
#
# ## 2. Replay it with the table's cost
#
# The same requests go through the simulator. How far is it off?


# %%
def errors(result: ig.SimulationResult) -> str:
    found = compare(log, result, ~first_half(log))["error"]
    return "  ".join(
        f"{name[:-2].upper():8}{found[name]['mean']:+7.1%}"
        for name in ("ttft_s", "tpot_s", "latency_s")
    )


before = served(table.cost, requests, 0.0)
print("error of the means:", errors(before))

# %% [markdown]
# ## 3. Calibrate
#
# `calibrate` looks at the first half of the log only. It finds three factors and a constant: what an iteration
# costs anyway, what tokens cost, what contexts cost, and the seconds between client and engine.

# %%
found = calibrate(log, table.cost, lambda cost, network_s: served(cost, requests, network_s))
factors = found.factors
print(
    f"overhead {factors.overhead:.2f}  compute {factors.compute:.2f}  attention {factors.attention:.2f}",
    end="  ",
)
print(f"network {1e3 * factors.request_s:.0f} ms")
print("before:", errors(before))
print("after: ", errors(found.after))
for warning in found.warnings:
    print("warning:", warning)

# %% [markdown]
# The errors are those of the second half, which the search has not seen. The factors themselves are not the
# truth: the search found little network, and more of an overhead. Costs that move together in a log cannot be
# told apart by it. What counts is that the replay agrees on requests that were not used.

# %%
figure, (left, right) = plt.subplots(
    1,
    2,
    num="The log and its replays: running requests over time, and latencies",
    figsize=(8, 3.4),
    layout="constrained",
)
moments = np.linspace(0.0, float(log.finish_s.max()), 400)
for label, result, colour, width in (
    ("log", log, "#2b2b2b", 3.0),
    ("table's cost", before, "#e07a3f", 1.6),
    ("calibrated", found.after, "#3657a8", 1.6),
):
    left.plot(
        moments,
        occupancy(result, moments, by_first_token=True).running,
        color=colour,
        linewidth=width,
        label=label,
    )
    right.plot(
        np.linspace(0, 100, len(log)),
        np.sort(result.latency_s),
        color=colour,
        linewidth=width,
        label=label,
    )
left.axvline(
    float(requests.arrival_s[first_half(log)][-1]), color="#9a9a9a", linestyle=":", linewidth=1
)
left.set(xlabel="seconds (dotted: end of the half that was fitted)", ylabel="running requests")
right.set(xlabel="share of the requests, %", ylabel="latency, s")
right.legend(frameon=False)
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=0)
plt.show()

# %% [markdown]
# ## 4. What it changes
#
# How many requests per second does this server carry within the limits? A wrong cost gives a wrong answer.

# %%
slo = ig.Slo(ttft_s=2.0, tpot_s=0.05)
for label, cost in (
    ("table's cost", table.cost),
    ("calibrated", found.cost),
    ("the truth", true_cost()),
):
    demand = Demand(
        lambda seed, replicas: ig.make_workload("azure-conv", 2 * NUM_REQUESTS, seed=seed),
        ig.EngineConfig(cost=cost, **table.sizes),
        slo,
    )
    capacity = find_capacity(
        FleetContender(ig.POLICIES["vllm"], ig.ROUTERS["round-robin"], 1), demand
    )
    print(f"{label:14} {capacity.rate_per_s:5.2f} requests per second")

# %% [markdown]
# ## On your own server
#
# ```
# infermax calibrate log.csv --cost qwen3-32b@h100x2 -o mine.json --picture calibrated.png
# infermax bench --cost mine.json --kv-tokens 212000 --workload trace.csv --policies vllm,hrrn
# ```
#
# Record the log at the load that you care about. Without a queue, a log says little about how the engine behaves
# under load. [Calibrate](../../docs/calibrate.md) has the formats and the warnings.
