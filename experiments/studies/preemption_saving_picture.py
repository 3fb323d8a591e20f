"""The picture of `preemption_saving`: what preemption saves over memory, one panel for each kind of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from infermax_gym.evaluation import mean_and_ci95

FOUND, OPEN, INK = "#0072b2", "#dbe9f4", "#5b6773"


def draw(
    path: Path, engine: str, mixes: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], held: Sequence[float]
) -> None:
    """Draw it.

    Args:
        path: FILE.svg or FILE.png.
        engine: whose figures they are.
        mixes: requests, then "found", "at_least" and "at_most": for each memory the shares of all draws.
        held: (k,) KV capacity over the longest request's peak.
    """
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "infermax_gym"}):
        import matplotlib.pyplot as plt

        figure, panels = plt.subplots(1, len(mixes), figsize=(10.4, 3.5), facecolor="white", sharey=True, squeeze=False)
        for axes, (mix, figures) in zip(panels[0], mixes.items(), strict=True):
            means, halves = 100 * np.array([mean_and_ci95(draws) for draws in figures["found"]]).T
            least, most = (100 * np.mean(figures[what], axis=1) for what in ("at_least", "at_most"))
            axes.fill_between(held, least, most, color=OPEN, linewidth=0, label="between the certified bounds")
            axes.errorbar(
                held, means, halves, color=FOUND, marker="o", markersize=5, linewidth=1.8, capsize=3, label="found"
            )
            for x, y, half in zip(held, means, halves, strict=True):
                axes.annotate(f"{y:.0f}", (x, y + half), (0, 5), textcoords="offset points", ha="center", color=FOUND)
            axes.set_xscale("log")
            axes.set_xticks(held, [f"{h:g}" for h in held])
            axes.minorticks_off()
            axes.set_title(mix.replace(", ", ",\n"), fontsize=9.5, loc="left")
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0][0].set_ylabel("GPU seconds saved, %")
        panels[0][0].set_ylim(0, None)
        figure.supxlabel(f"KV capacity over the longest request; {engine}", fontsize=9, color=INK, y=0.1)
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
        figure.tight_layout(rect=(0, 0.09, 1, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)
