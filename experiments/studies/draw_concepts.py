"""The pictures of docs/concepts: `python -m experiments.studies.draw_concepts --out docs/pictures/concepts`.

All but the blocks of the paged KV cache are simulated: a few requests on llama2-7b-a100, drawn iteration by iteration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost.engines import find_engine
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.workload import Workload

PREFILL, REFILL, DECODE, WAIT, LIMIT = "#2f6db3", "#d1495b", "#8fbcd9", "#e6e6e6", "#d1495b"
REQUESTS = ("#2f6db3", "#e08e45", "#4c9f70", "#8e6bbf")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "svg.fonttype": "path",
    "svg.hashsalt": "infermax_gym",
}


def _run(policy: str, requests: list[tuple[float, int, int]], **engine: Any) -> SimulationResult:
    """A recorded run of (arrival_s, prompt, output) requests."""
    arrivals, prompts, outputs = (np.array(column) for column in zip(*requests, strict=True))
    workload = Workload(arrival_s=arrivals, num_prompt_tokens=prompts, num_output_tokens=outputs)
    return simulate(workload, EngineConfig(**engine), POLICIES[policy], record_schedule=True)


def _stays(run: SimulationResult) -> list[tuple[int, float, float, str, int]]:
    """(request, start_s, end_s, colour, resident tokens) of each request in each iteration."""
    prompts, outputs = run.workload.num_prompt_tokens, run.workload.num_output_tokens
    resident, generated = np.zeros(len(prompts), np.int64), np.zeros(len(prompts), np.int64)
    stays = []
    for iteration in run.schedule or ():
        for r in iteration.preempted:
            resident[r] = 0
        for r, tokens in iteration.batch:
            is_decode = generated[r] > 0 and resident[r] == prompts[r] + generated[r] - 1
            colour = DECODE if is_decode else REFILL if generated[r] else PREFILL
            resident[r] += tokens
            generated[r] += resident[r] == prompts[r] + generated[r]
            stays.append((r, iteration.start_s, iteration.end_s, colour, int(resident[r])))
            if generated[r] == outputs[r]:
                resident[r] = 0
    return stays


def _requests(axes: Axes, run: SimulationResult) -> None:
    """A line of time for each request: waiting grey, then what each iteration does for it."""
    for r, (arrival_s, finish_s) in enumerate(zip(run.workload.arrival_s, run.finish_s, strict=True)):
        axes.add_patch(Rectangle((arrival_s, r - 0.08), finish_s - arrival_s, 0.16, color=WAIT))
    for r, start_s, end_s, colour, _ in _stays(run):
        axes.add_patch(
            Rectangle((start_s, r - 0.36), end_s - start_s, 0.72, facecolor=colour, edgecolor="white", lw=0.4)
        )
    axes.set(ylim=(len(run.workload) - 0.5, -0.5), yticks=range(len(run.workload)), ylabel="request")
    axes.set_yticklabels([str(r + 1) for r in range(len(run.workload))])


def _legend(figure: Figure, **entries: str) -> None:
    patches = [Rectangle((0, 0), 1, 1, color=colour) for colour in entries.values()]
    names = [name.replace("_", " ") for name in entries]
    figure.legend(patches, names, loc="outside lower center", ncols=len(entries), frameon=False)


def continuous_batching(figure: Figure) -> None:
    """The same six requests in static batches and in continuous ones."""
    requests = [(0.0, 60, 14), (0.0, 120, 40), (0.0, 40, 6), (0.01, 80, 12), (0.02, 60, 20), (0.03, 100, 8)]
    runs = {
        "Static batches: the next one begins when the last request of this one has ended": "fastertransformer",
        "Continuous batching: requests join and leave between iterations": "sarathi",
    }
    panels, end_s = figure.subplots(2, 1, sharex=True), 0.0
    for axes, (title, policy) in zip(panels, runs.items(), strict=True):
        run = _run(policy, requests, max_num_seqs=3, max_model_len=256, num_kv_tokens=4_000)
        _requests(axes, run)
        axes.set(title=f"{title} (mean latency {run.latency_s.mean():.2f} s)")
        end_s = max(end_s, run.makespan_s)
    panels[-1].set(xlabel="seconds", xlim=(0, end_s))
    _legend(figure, prefill=PREFILL, decode=DECODE, waits=WAIT)


def paged_kv(figure: Figure) -> None:
    """What four requests hold: contiguous room for the longest answer, and blocks of 16 tokens."""
    lengths, num_blocks, longest = (70, 40, 100, 25), 32, 8
    panels = figure.subplots(1, 2)
    for axes, title in zip(
        panels, ("Reserved for the longest answer", "Paged: blocks as they are needed"), strict=True
    ):
        axes.set(title=title, xlim=(-0.1, 8.1), ylim=(4.1, -0.1), aspect="equal", xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
    order = np.random.default_rng(5).permutation(num_blocks)
    place = 0
    for r, length in enumerate(lengths):
        filled = [min(16, length - 16 * k) / 16 for k in range(-(-length // 16))]
        for axes, where in (
            (panels[0], [r * longest + k for k in range(longest)]),
            (panels[1], order[place : place + len(filled)]),
        ):
            for k, block in enumerate(where):
                _block(axes, int(block), REQUESTS[r], filled[k] if k < len(filled) else 0.0, f"{r + 1}.{k + 1}")
        place += len(filled)
    for block in order[place:]:
        _block(panels[1], int(block), None, 0.0, "free")
    held = sum(lengths)
    panels[0].set_xlabel(f"{held} tokens fill {held / (16 * num_blocks):.0%} of the memory, and nobody else fits")
    panels[1].set_xlabel(f"{place} of {num_blocks} blocks are held; {num_blocks - place} are free for others")


def _block(axes: Axes, block: int, colour: str | None, filled: float, text: str) -> None:
    x, y = block % 8, block // 8
    frame = colour or "#bbbbbb"
    axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, facecolor="white", edgecolor=frame, lw=1.4))
    axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9 * filled, 0.9, facecolor=frame, alpha=0.45))
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=8, color="#333333" if colour else "#999999")


def chunked_prefill(figure: Figure) -> None:
    """Four requests decode when a long prompt arrives: what that does to the gaps between their tokens."""
    requests = [(0.0, 50, 90)] * 4 + [(0.15, 4_000, 8)]
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    runs = {
        "Whole prompt in one iteration": ("sarathi-no-chunk", 4_096),
        "Chunked prefill, 512 tokens an iteration": ("sarathi", 512),
    }
    for axes, (title, (policy, budget)) in zip(panels, runs.items(), strict=True):
        run = _run(policy, requests, num_kv_tokens=20_000, max_num_batched_tokens=budget)
        gaps = [end_s - start_s for r, start_s, end_s, _, _ in _stays(run) if r == 0]
        for r, start_s, end_s, colour, _ in _stays(run):
            axes.add_patch(
                Rectangle((start_s, r - 0.36), end_s - start_s, 0.72, facecolor=colour, edgecolor="white", lw=0.4)
            )
        axes.set(ylim=(4.5, -0.5), yticks=range(5), ylabel="request", xlim=(0, 0.68))
        axes.set_yticklabels([str(r + 1) for r in range(5)])
        ttft_s = run.ttft_s[4]
        axes.set_title(f"{title}: longest gap {max(gaps):.2f} s, first token of the long one after {ttft_s:.2f} s")
    panels[-1].set_xlabel("seconds")
    _legend(figure, prefill=PREFILL, decode=DECODE)


def preemption(figure: Figure) -> None:
    """Four requests outgrow the memory: the newest gives its KV back and computes it again."""
    requests = [(0.0, 64, 70), (0.05, 80, 60), (0.1, 48, 40), (0.15, 96, 30)]
    run = _run("vllm-0.13", requests, num_kv_tokens=352, max_num_batched_tokens=512, max_model_len=256)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _requests(above, run)
    above.set_title("Memory runs out: the newest request is preempted, waits, and computes its tokens again")
    stays = _stays(run)
    held = np.zeros(len(requests), np.int64)
    times, totals = [0.0], [0]
    for iteration in run.schedule or ():
        for r in iteration.preempted:
            held[r] = 0
            above.plot(iteration.start_s, r, marker="x", color="#222222", ms=9, mew=2)
        for r, start_s, _, _, resident in stays:
            if start_s == iteration.start_s:
                held[r] = 16 * -(-resident // 16)
        times.append(iteration.start_s)
        totals.append(int(held.sum()))
        held[run.finish_s == iteration.end_s] = 0
    below.fill_between([*times, run.makespan_s], [*totals, totals[-1]], step="post", color=DECODE, lw=0)
    below.axhline(352, color=LIMIT, lw=1.4)
    below.text(run.makespan_s, 362, "capacity", color=LIMIT, ha="right", va="bottom")
    below.set(ylabel="KV tokens held", xlabel="seconds", ylim=(0, 430), xlim=(0, run.makespan_s))
    _legend(figure, prefill=PREFILL, decode=DECODE, refill_after_preemption=REFILL, waits=WAIT)


def cost_model(figure: Figure) -> None:
    """What an iteration takes: prompts cost tokens, decodes cost reading their KV, and all cost the weights."""
    left, right = figure.subplots(1, 2)
    for name, colour in (("llama-3.1-8b@h100", PREFILL), ("qwen3-32b@h100x2", "#e08e45")):
        cost = find_engine(name).cost
        tokens = np.unique(np.geomspace(1, 8_192, 120).astype(int))
        left.plot(tokens, [1e3 * cost.seconds(prefills=[(int(c), 0)]) for c in tokens], color=colour, label=name)
        count = np.arange(1, 257)
        right.plot(count, [1e3 * cost.seconds(decodes=[1_000] * int(d)) for d in count], color=colour, label=name)
        right.plot(count, [1e3 * cost.seconds(decodes=[8_000] * int(d)) for d in count], color=colour, ls="--")
    left.set(xscale="log", yscale="log", xlabel="prompt tokens in the iteration", ylabel="milliseconds")
    left.set_title("A prefill: flat, then in proportion")
    right.set(xlabel="decodes in the iteration", ylabel="milliseconds", ylim=(0, None), xlim=(0, 256))
    right.set_title("Decodes behind 1,000 tokens, or 8,000 (dashed)")
    left.legend(frameon=False)


PICTURES: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
    "continuous-batching": (continuous_batching, (9.0, 5.0)),
    "paged-kv": (paged_kv, (9.0, 3.2)),
    "chunked-prefill": (chunked_prefill, (9.0, 4.6)),
    "preemption": (preemption, (9.0, 4.8)),
    "cost-model": (cost_model, (9.0, 3.6)),
}


def main(arguments: list[str] | None = None) -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the SVG files go")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        for name, (draw, size) in PICTURES.items():
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
