"""The pictures of docs/behaviour.md: `python -m experiments.board.behaviour --out docs/pictures`.

One held-out trace slice under rules and under something learned: how many requests run and wait, how full memory is,
whom preemptions hit, and which knobs the generalist sets as the load changes; and who gets the first token in time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from experiments.board.rivals import load_rivals
from experiments.board.scenarios import SCENARIOS
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.controller_layout import CONTROLLER_KNOBS
from infermax_gym.agents.scenario import TEST, TraceSlice, trace_slices
from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.optimum.in_time import most_in_time
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Policy, SimulationResult
from infermax_gym.evaluation import serve

SCENARIOS_DRAWN = {
    "reasoning-tight-overloaded-7b": "generalist",
    "conv-tight-overloaded-7b": "generalist",
    "mooncake-wide-overloaded-7b": "generalist",
    "conv-wide-saturated-7b": "conv-ppo",
}
"""Which of the zoo is drawn beside the rules in which scenario."""

IN_TIME = ("code-tight-overloaded-7b", "mooncake-wide-overloaded-7b")
"""Where it is drawn which requests meet their limit."""

RULES = {"sarathi": "#b8860b", "spf-headroom": "#4878a8"}
LEARNED = "#c0392b"


def time_series(result: SimulationResult) -> dict[str, Any]:
    """Over the iterations: times, running, waiting, share of KV tokens resident; and the victims' generated tokens."""
    workload, schedule = result.workload, result.schedule
    assert schedule is not None
    count = len(workload)
    resident, generated = np.zeros(count, np.int64), np.zeros(count, np.int64)
    victims: list[tuple[float, int]] = []
    times, running, tokens = [], [], []
    for iteration in schedule:
        for r in iteration.preempted:
            victims.append((iteration.start_s, int(generated[r])))
            resident[r] = 0
        for r, c in iteration.batch:
            resident[r] += c
            if resident[r] >= workload.num_prompt_tokens[r] + generated[r]:
                generated[r] += 1
                if generated[r] == workload.num_output_tokens[r]:
                    resident[r] = 0
        times.append(iteration.end_s)
        running.append(int((resident > 0).sum()))
        tokens.append(int(resident.sum()))
    at = np.array(times)
    arrived = np.searchsorted(workload.arrival_s, at, side="right")
    finished = np.searchsorted(np.sort(result.finish_s), at, side="right")
    waiting = arrived - finished - np.array(running)
    return {"s": at, "running": np.array(running), "waiting": waiting, "tokens": np.array(tokens), "victims": victims}


def draw_scenario(scenario: str, trace_slice: TraceSlice, contenders: dict[str, Policy | Agent], folder: Path) -> None:
    """Running, waiting, memory over time; victims; latencies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    for name, contender in contenders.items():
        result = serve(contender, trace_slice.workload, trace_slice.engine, record_schedule=True)
        drawn, colour = time_series(result), RULES.get(name, LEARNED)
        axes[0, 0].plot(drawn["s"], drawn["running"], color=colour, lw=1, label=name)
        axes[0, 1].plot(drawn["s"], drawn["waiting"], color=colour, lw=1)
        axes[0, 2].plot(
            drawn["s"],
            100.0 * drawn["tokens"] / trace_slice.engine.num_kv_tokens,
            color=colour,
            lw=0.8,
        )
        if drawn["victims"]:
            when, progress = zip(*drawn["victims"], strict=True)
            axes[1, 0].scatter(when, progress, s=7, color=colour, alpha=0.5, lw=0)
        order = np.argsort(trace_slice.workload.num_output_tokens)
        axes[1, 1].scatter(
            trace_slice.workload.num_output_tokens[order], result.latency_s[order], s=6, color=colour, alpha=0.5, lw=0
        )
        share = np.linspace(0.0, 100.0, len(trace_slice.workload))
        mean, p99 = result.latency_s.mean(), np.quantile(result.latency_s, 0.99)
        axes[1, 2].plot(np.sort(result.latency_s), share, color=colour, label=f"mean {mean:.1f} s, p99 {p99:.0f} s")
    titles: tuple[str, ...] = ("running requests", "waiting requests", "KV tokens resident, %")
    titles += ("generated tokens of the preempted", "latency in s, by output tokens", "requests served within s, %")
    for panel, title in zip(axes.flat, titles, strict=True):
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    for panel in (*axes[0], axes[1, 0]):
        panel.set_xlabel("simulated seconds", fontsize=8)
    axes[1, 0].set_yscale("symlog", linthresh=10)
    axes[1, 1].set(xscale="log", yscale="log")
    axes[1, 2].set_xscale("log")
    axes[0, 0].legend(fontsize=8, frameon=False)
    axes[1, 2].legend(fontsize=8, frameon=False)
    figure.suptitle(scenario)
    figure.savefig(folder / f"behaviour-{scenario.rsplit('-', 2)[0]}.png", dpi=110)


def draw_in_time(scenario: str, contenders: dict[str, Policy | Agent], folder: Path) -> None:
    """Who gets the first token in time, request by request, under a rule and under something learned."""
    from matplotlib.figure import Figure

    trace_slice = trace_slices(SCENARIOS[scenario], 1, split=TEST)[0]
    workload, limit_s = trace_slice.workload, float(trace_slice.workload.ttft_slo_s[0])
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[1].sharey(axes[0])
    for panel, (name, contender), colour in zip(
        axes, contenders.items(), (RULES["spf-headroom"], LEARNED), strict=False
    ):
        result = serve(contender, workload, trace_slice.engine)
        in_time = result.ttft_s <= limit_s
        for some, alpha in ((in_time, 0.8), (~in_time, 0.3)):
            panel.scatter(workload.arrival_s[some], result.ttft_s[some], s=7, color=colour, alpha=alpha, lw=0)
        panel.set_title(f"{name}: {100.0 * in_time.mean():.0f} % in time", fontsize=10)
        panel.set(xlabel="arrival, simulated seconds", ylabel="seconds to the first token", yscale="log")
        panel.axhline(limit_s, color="#333333", lw=0.8)
        share = np.linspace(0.0, 100.0, len(workload))
        axes[2].plot(np.sort(result.ttft_s), share, color=colour, label=name)
    axes[2].axvline(limit_s, color="#333333", lw=0.8)
    axes[2].set_title("first tokens within s, %", fontsize=10)
    axes[2].set(xlabel="seconds to the first token", xscale="log")
    axes[2].legend(fontsize=8, frameon=False, loc="lower right")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    possible = most_in_time(workload, trace_slice.engine) / len(workload)
    figure.suptitle(f"{scenario}, limit {limit_s:g} s: no more than {100.0 * possible:.0f} % can be in time")
    figure.savefig(folder / f"behaviour-in-time-{scenario.split('-')[0]}.png", dpi=110)


def draw_knobs(agent: Agent, folder: Path) -> None:
    """What the generalist sets in each scenario: the mean of a few knobs at three loads."""
    from matplotlib.figure import Figure

    names = ("max_running", "headroom", "aging", "known_tokens", "generated_tokens", "preempt")
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True)
    groups = sorted({scenario.rsplit("-", 2)[0] for scenario in SCENARIOS})
    for panel, knob in zip(axes, names, strict=True):
        for model, colour in (("7b", "#c0392b"), ("70b", "#4878a8")):
            values = [mean_setting(agent, f"{group}-overloaded-{model}", knob) for group in groups]
            panel.plot(values, range(len(groups)), "o", color=colour, ms=5, label=model)
        panel.set_title(knob, fontsize=10)
        panel.set_xlim(-1.08, 1.08)
        panel.axvline(0.0, color="#cccccc", lw=0.8, zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.set_yticks(range(len(groups)), groups)
    axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle("Mean setting of a knob in -1 .. 1, overloaded scenarios")
    figure.savefig(folder / "behaviour-knobs.png", dpi=110)


def mean_setting(agent: Agent, scenario: str, knob: str) -> float:
    """A knob's mean over the settings in one held-out trace slice."""
    assert agent.controller is not None
    trace_slice = trace_slices(SCENARIOS[scenario], 1, split=TEST)[0]
    settings = agent.controller.settings(trace_slice.workload, trace_slice.engine)
    return float(np.mean([setting.knobs[CONTROLLER_KNOBS.index(knob)] for setting in settings]))


def main(arguments: list[str] | None = None) -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description="Draw what learned policies do differently.")
    parser.add_argument("--out", type=Path, default=Path("runs/pictures"), metavar="DIR", help="gets the pictures")
    folder: Path = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    for scenario, learned in SCENARIOS_DRAWN.items():
        contenders: dict[str, Policy | Agent] = {
            **{name: POLICIES[name] for name in RULES},
            learned: load_agent(learned),
        }
        draw_scenario(scenario, trace_slices(SCENARIOS[scenario], 1, split=TEST)[0], contenders, folder)
    draw_knobs(load_agent("generalist"), folder)
    for scenario in IN_TIME:
        rule = load_rivals().policies_of(scenario)["per-cell-goodput"]
        draw_in_time(scenario, {"rule tuned for goodput": rule, "goodput": load_agent("goodput")}, folder)


if __name__ == "__main__":
    main()
