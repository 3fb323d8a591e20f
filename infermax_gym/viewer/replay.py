"""A log of a real engine beside its replays: what was held over time, and how the requests fared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import SimulationResult
from infermax_gym.evaluation.replay import Occupancy, occupancy
from infermax_gym.files import atomic
from infermax_gym.workload.request_log import RequestLog

_REAL = "#2b2b2b"
_SIMULATED = ("#1f77b4", "#e07a3f", "#3a9d6e")
_FAINT = "#9a9a9a"
_NUM_MOMENTS = 1_000
_TIMES = (("ttft_s", "time to first token (s)"), ("tpot_s", "time per output token (ms)"), ("latency_s", "latency (s)"))


def draw_replay(
    log: RequestLog,
    runs: Mapping[str, SimulationResult],
    path: Path,
    *,
    title: str = "",
    kv_tokens: int | None = None,
    max_num_seqs: int | None = None,
    split_s: float | None = None,
) -> None:
    """Draw a log and its replays.

    Left: waiting and running requests and the tokens of their contexts over time. Right: for every share of the
    requests, the time within which they got their first token, a further one, and their last.

    Args:
        log: what happened.
        runs: replays of it by label, at most three.
        path: picture to write; the ending chooses the format.
        title: above the picture.
        kv_tokens: KV capacity, drawn as a line where it is near.
        max_num_seqs: most running requests, drawn as a line where it is near.
        split_s: a moment to mark, such as the end of the half that was fitted.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; one line.
        ValueError: an ending that matplotlib does not know.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 6.6), layout="constrained")
    axes = figure.subplots(3, 2, width_ratios=[2.1, 1.0])
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    end_s = max([float(log.finish_s.max()), *(float(np.nanmax(run.finish_s)) for run in runs.values())])
    moments = np.linspace(0.0, end_s, _NUM_MOMENTS)
    blind = bool(np.isnan(log.first_scheduled_s).any())
    real = occupancy(log, moments, by_first_token=blind)
    simulated = {label: occupancy(run, moments, by_first_token=blind) for label, run in runs.items()}
    _draw_over_time(axes[:, 0], real, simulated, {"running": max_num_seqs, "context_tokens": kv_tokens}, split_s)
    for axis, (name, label) in zip(axes[:, 1], _TIMES, strict=True):
        scale = 1e3 if name == "tpot_s" else 1.0
        _draw_shares(axis, getattr(log, name) * scale, _REAL, 2.4)
        for colour, run in zip(_SIMULATED, runs.values(), strict=False):
            _draw_shares(axis, getattr(run, name) * scale, colour, 1.3)
        axis.set_title(label, fontsize=9.5, loc="left")
    axes[2, 1].set_xlabel("share of requests")
    for axis in axes.flat:
        _plain(axis)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].legend(handles, labels, frameon=False, fontsize=9, loc="upper right")
    with atomic(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=150)


def _draw_over_time(
    axes: Any,
    real: Occupancy,
    simulated: Mapping[str, Occupancy],
    limits: Mapping[str, int | None],
    split_s: float | None,
) -> None:
    for axis, (name, label) in zip(
        axes,
        (
            ("waiting", "waiting requests"),
            ("running", "running and preempted requests"),
            ("context_tokens", "context of running and preempted requests, 1,000 tokens"),
        ),
        strict=True,
    ):
        scale = 1e-3 if name == "context_tokens" else 1.0
        values = getattr(real, name) * scale
        axis.fill_between(real.time_s, values, color="#ececec", linewidth=0)
        axis.plot(real.time_s, values, color=_REAL, linewidth=2.4, label="logged")
        for colour, (run, one) in zip(_SIMULATED, simulated.items(), strict=False):
            axis.plot(one.time_s, getattr(one, name) * scale, color=colour, linewidth=1.3, label=run)
        limit = limits.get(name)
        if limit is not None and limit * scale < 2.0 * max(float(values.max()), 1e-9):
            axis.axhline(limit * scale, color=_FAINT, linewidth=0.9, linestyle=(0, (5, 3)))
            label += " (dashed: KV capacity)" if name == "context_tokens" else " (dashed: max_num_seqs)"
        if split_s is not None:
            axis.axvline(split_s, color=_FAINT, linewidth=0.9, linestyle=":")
        axis.set_ylim(bottom=0.0)
        axis.set_xlim(0.0, float(real.time_s[-1]))
        axis.set_title(label, fontsize=9.5, loc="left")
    axes[-1].set_xlabel("seconds")


def _draw_shares(axis: Any, values: NDArray[np.float64], colour: str, width: float) -> None:
    kept = np.sort(values[np.isfinite(values)])
    axis.plot(np.linspace(0.0, 1.0, len(kept)), kept, color=colour, linewidth=width)
    axis.set_xlim(0.0, 1.0)
    axis.set_ylim(bottom=0.0)


def _plain(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(_FAINT)
    axis.tick_params(labelsize=8.5, colors="#444444")
    axis.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    axis.set_axisbelow(True)
