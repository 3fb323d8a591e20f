"""Source of a notebook: python -m experiments.notebooks.make."""

# %% [markdown]
# # The 30 % of preemption, with proofs
#
# Preemption drops a request's KV and computes it again later. That is waste. Yet the INFERMAX paper (arXiv 2411.07447)
# reports that it saves up to 30 % of GPU cost. Both are true: it depends on the length of the prompts. Here optima are
# proven with preemption and without, so that no bad schedule can blur the comparison.
#
# You need `pip install '.[optimum,viewer]'`. The first call compiles the solver, once. That takes a minute or two.

# %% tags=["parameters"]
PROMPTS = (2, 4, 8, 16, 32)
TIME_LIMIT_S = 60

# %%
import matplotlib.pyplot as plt
import numpy as np

from infermax_gym.baselines.optimum import Instance, solve
from infermax_gym.baselines.optimum.program.solve import ProgramSearch
from infermax_gym.baselines.optimum.solved import solved_instances
from infermax_gym.viewer.schedule import DECODE, HELD, PREFILL, REFILL, stays_of

# %% [markdown]
# ## 1. Three requests, two proofs
#
# Three requests with prompts of 2 tokens and outputs of 8 are there at once. Memory holds 11 tokens, and each request
# needs 9 at its end. The model is Llama-3-70B on four A100, with INFERMAX's own coefficients.
#
# `solve` searches for the schedule that ends first. It says `optimal` only if a proven bound meets the schedule, and the
# schedule was replayed by the engine.

# %%
instance = Instance.of([(2, 8)] * 3, kv_tokens=11, cost="llama3-70b-a100x4")
VARIANTS = {"preemptive": "with preemption", "no-preemption": "without preemption"}
found = {variant: solve(instance, "makespan", variant=variant, time_limit_s=TIME_LIMIT_S) for variant in VARIANTS}
for variant, solution in found.items():
    print(f"{VARIANTS[variant]:20} {solution.objective_s:.4f} s, {solution.status}")
saved = 1 - found["preemptive"].objective_s / found["no-preemption"].objective_s
print(f"preemption saves {saved:.1%}")

# %% [markdown]
# Is that so? A second method shall agree. Here the problem is a constraint program for CP-SAT, which has every choice of
# the engine: admit, cut, preempt, hold, wait. It is slower, so it gets two requests, and the other method's time plus
# a hundredth of a percent as a limit.

# %%
smaller = Instance.of([(2, 6)] * 2, kv_tokens=9, cost="llama3-70b-a100x4")
for variant, label in VARIANTS.items():
    best_s = solve(smaller, "makespan", variant=variant, time_limit_s=TIME_LIMIT_S).objective_s
    search = ProgramSearch(smaller, "makespan", variant, incumbent_s=1.0001 * best_s)
    search.run(TIME_LIMIT_S, workers=2)
    agrees = search.proven and abs(search.bound_s / best_s - 1) < 1e-6
    print(f"{label:20} {best_s:.4f} s; CP-SAT proves {search.bound_s:.4f} s: {'the same' if agrees else 'not the same'}")

# %% [markdown]
# ## 2. What the optimal schedules do
#
# With preemption all three begin at once. When memory fills up, two give way and come back later. Their refills are
# cheap: a few tokens in one pass. Without preemption they wait, with their KV or before they begin. Then the GPU runs
# batches of one.

# %%
COLOURS = {PREFILL: "#2f6db3", REFILL: "#d1495b", DECODE: "#8fbcd9", HELD: "#e4e4e4"}
figure, panels = plt.subplots(
    2, 1, sharex=True, num="Optimal schedules with preemption and without", figsize=(7, 3.6), layout="constrained"
)
for axes, (variant, solution) in zip(panels, found.items(), strict=True):
    run = solution.run
    for stay in stays_of(run.schedule, run.workload.num_prompt_tokens, run.workload.num_output_tokens):
        width = stay.end_s - stay.start_s
        axes.barh(stay.request, width, left=stay.start_s, color=COLOURS[stay.kind], edgecolor="white", height=0.8)
    axes.set_title(f"{VARIANTS[variant]}: {solution.objective_s:.3f} s", loc="left", fontsize=10)
    axes.set(yticks=range(3), ylabel="request")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
panels[1].set_xlabel("seconds")
handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
figure.legend(handles, COLOURS, ncols=4, frameon=False, fontsize=9, loc="outside lower center")
plt.show()

# %% [markdown]
# ## 3. Where the saving ends
#
# Four requests with outputs of 12 tokens, and memory for 1.3 times what one of them needs. Only the length of the prompt
# changes.

# %%
savings, proven = [], True
for prompt in PROMPTS:
    many = Instance.of([(prompt, 12)] * 4, kv_tokens=int(1.3 * (prompt + 11)), cost="llama3-70b-a100x4")
    both = [solve(many, "makespan", variant=variant, time_limit_s=TIME_LIMIT_S) for variant in VARIANTS]
    savings.append(1 - both[0].objective_s / both[1].objective_s)
    proven = proven and all(one.status == "optimal" for one in both)
    print(f"prompt of {prompt:2}: {both[0].objective_s:.4f} s instead of {both[1].objective_s:.4f} s, {savings[-1]:.1%} saved")
print("all proven" if proven else "not all proven")

# %%
library = [entry for entry in solved_instances() if entry.name.startswith(("random", "blocks", "chunked", "arrivals"))]
of_library = {
    entry.name: 1 - entry.optimum("makespan").objective_s / entry.optimum("makespan", "no-preemption").objective_s
    for entry in library
}
figure, (left, right) = plt.subplots(
    1, 2, num="Proven savings by prompt length, and over random instances", figsize=(7.6, 3.2), layout="constrained"
)
left.plot(PROMPTS, 100 * np.array(savings), marker="o", color="#3657a8", linewidth=2)
left.set(xlabel="prompt tokens (outputs: 12)", ylabel="makespan saved, %", title="identical requests", ylim=(-1, 36))
right.hist(100 * np.array(list(of_library.values())), bins=np.arange(-1, 37, 2), color="#3657a8", rwidth=0.9)
right.set(xlabel="makespan saved, %", ylabel="instances", title=f"{len(library)} random instances")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# On the right are small random instances from the library that comes with the package, `solved_instances()`. Their
# prompts and outputs are of similar length, and all their optima are proven.

# %%
proofs = [optimum.status for entry in library for optimum in entry.optima]
print(f"{sum(status == 'optimal' for status in proofs)} of {len(proofs)} optima of these instances are proven")
print(f"median saving {np.median(list(of_library.values())):.1%}, largest {max(of_library.values()):.1%}")

# %% [markdown]
# ## What to take home
#
# - The 30 % are real, at the optimum and on both sides proven. They need short prompts, long outputs, and memory for
#   about one request.
# - A prompt as long as the output or longer ends them. Then a refill costs more than the iterations that it spares.
# - Optimal schedulers know output lengths. What online rules gain is another question:
#   [schedulers compared](../../docs/schedulers.md).
#
# Next: [the optimum](../../docs/optimum.md) says how proofs are found;
# [prove an optimum](../../docs/guides/prove-an-optimum.md) does it for your own instance.
