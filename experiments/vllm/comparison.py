"""Runs of a server under several schedulers, from their step logs, beside what the logs of FCFS alone predict.

Every turn serves the same requests under each scheduler, so ratios to the FCFS run of the turn are compared: what the
machine does for longer than a turn drops out of them. The cost of an iteration is fitted to the FCFS runs, host time
between iterations included, and scaled for each turn so that its FCFS run takes as long in all as it did.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = ("ttft_s", "latency_s", "p99_s")
Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""For each scheduler the figures of its runs, one a turn."""

_T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # Student's, by runs


def real_figures(folder: Path) -> dict[str, float]:
    """Means and the tail, from a step log."""
    from infermax_gym.workload.request_log import read_request_log

    log = read_request_log(folder)
    return _figures(log.ttft_s, log.latency_s)


def simulated_figures(settings: Mapping[str, Any], folder: Path, config: Any) -> dict[str, float]:
    """The same of the simulator, for the requests of a step log.

    Args:
        settings: of the plug-in; none: vLLM's own FCFS.
        folder: the log.
        config: the engine.
    """
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.engine import simulate
    from infermax_gym.vllm.settings import read_settings
    from infermax_gym.workload.step_log import read_steps

    policy = read_settings({"infermax": settings}).policy if settings else POLICIES["vllm"]
    assert policy is not None
    result = simulate(read_steps(folder).workload, config, policy)
    return _figures(result.ttft_s, result.latency_s)


def _figures(ttft_s: Any, latency_s: Any) -> dict[str, float]:
    return {
        "ttft_s": float(ttft_s.mean()),
        "latency_s": float(latency_s.mean()),
        "p99_s": float(np.quantile(latency_s, 0.99)),
    }


def fitted_cost(folders: Sequence[Path]) -> Any:
    """A cost model from the steps of some runs."""
    from infermax_gym.cost import load_cost_model
    from infermax_gym.workload.step_log import read_steps

    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for folder in folders:
            read_steps(folder).write_batches(scratch / "some.csv")
            lines += (scratch / "some.csv").read_text().splitlines()[1 if lines else 0 :]
        (scratch / "batches.csv").write_text("\n".join(lines) + "\n")
        fit = ["fit", str(scratch / "batches.csv"), "-o", str(scratch / "cost.json")]
        subprocess.run([sys.executable, "-m", "infermax_gym", *fit], check=True, stdout=sys.stderr)
        return load_cost_model(scratch / "cost.json")


def as_fast_as(cost: Any, folder: Path) -> Any:
    """A cost model scaled so that the iterations of a run take as long in all as they did."""
    from infermax_gym.vllm.seconds import batch_seconds
    from infermax_gym.workload.step_log import read_steps

    steps = read_steps(folder)
    by_model = 0.0
    for step in steps.steps:
        prefills = [(tokens, before) for _, tokens, before, in_prefill in step.batch if in_prefill]
        decodes = [before for _, _, before, in_prefill in step.batch if not in_prefill]
        by_model += batch_seconds(
            cost,
            sum(tokens for tokens, _ in prefills) + len(decodes),
            sum(tokens * tokens + 2 * tokens * before for tokens, before in prefills),
            len(prefills),
            sum(before for _, before in prefills),
            sum(decodes),
            len(decodes),
        )
    factor = float(steps.cycle_seconds().sum()) / by_model
    terms = tuple(tuple(tuple(factor * weight for weight in form) for form in term) for term in cost.terms)
    minima = tuple(tuple(tuple(factor * weight for weight in form) for form in term) for term in cost.min_terms)
    return replace(cost, terms=terms, min_terms=minima)


def ratios(runs: Runs, name: str, figure: str) -> tuple[float, float]:
    """Mean over turns of a scheduler's ratio to FCFS, and the half-width of its 95 % interval."""
    turns = zip(runs[name], runs["fcfs"], strict=True)
    values = np.array([run[figure] / base[figure] for run, base in turns])
    if len(values) not in _T_975:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(_T_975[len(values)] * values.std(ddof=1) / np.sqrt(len(values)))


def table(
    schedulers: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Sequence[Path]], config_of: Callable[[Any], Any]
) -> str:
    """Real beside predicted, as Markdown.

    Args:
        schedulers: settings of the plug-in by name, "fcfs" among them.
        folders: step logs of each, one a turn.
        config_of: the engine with a given cost.
    """
    fitted = fitted_cost(folders["fcfs"])
    costs = [config_of(as_fast_as(fitted, folder)) for folder in folders["fcfs"]]
    real = {name: [real_figures(folder) for folder in own] for name, own in folders.items()}
    predicted = {
        name: [simulated_figures(settings, *turn) for turn in zip(folders["fcfs"], costs, strict=True)]
        for name, settings in schedulers.items()
    }
    at_its_speed = {
        name: [
            simulated_figures(schedulers[name], base, config_of(as_fast_as(fitted, folder)))
            for base, folder in zip(folders["fcfs"], own, strict=True)
        ]
        for name, own in folders.items()
    }
    lines = [
        "| scheduler | figure | real, s | predicted, s | ratio to fcfs, real | predicted | at each run's own speed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in schedulers:
        for figure in FIGURES:
            means = [f"{np.mean([run[figure] for run in runs[name]]):.2f}" for runs in (real, predicted)]
            compared = ["1", "1", "1"]
            if name != "fcfs":
                compared = [
                    "{:.2f} +- {:.2f}".format(*ratios(r, name, figure)) for r in (real, predicted, at_its_speed)
                ]
            lines.append("| " + " | ".join([f"`{name}`", figure, *means, *compared]) + " |")
    return "\n".join(lines)
