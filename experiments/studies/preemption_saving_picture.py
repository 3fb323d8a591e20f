"""The picture of `preemption_saving`: what preemption saves over memory, engine by engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from infermax_gym.evaluation import mean_and_ci95

COLOURS = ("#0072b2", "#009e73", "#e69f00", "#a63a9b")
MARKERS = ("o", "s", "^", "D")


def draw(
    path: Path, lines: Mapping[str, Mapping[str, Mapping[str, Sequence[Sequence[float]]]]], held: Sequence[float]
) -> None:
    """Draw it.

    Args:
        path: FILE.svg or FILE.png.
        lines: engine, then requests, then "found", "at_least" and "at_most": for each memory the shares of all draws.
        held: (k,) KV capacity over the longest request's peak.
    """
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "infermax_gym"}):
        import matplotlib.pyplot as plt

        figure, panels = plt.subplots(1, len(lines), figsize=(10.4, 3.9), facecolor="white", sharey=True, squeeze=False)
        for axes, (engine, mixes) in zip(panels[0], lines.items(), strict=True):
            for (mix, figures), colour, marker in zip(mixes.items(), COLOURS, MARKERS, strict=True):
                means, halves = np.array([mean_and_ci95(draws) for draws in figures["found"]]).T
                most = np.array([np.mean(draws) for draws in figures["at_most"]])
                axes.fill_between(held, 100 * means, 100 * most, color=colour, alpha=0.08, linewidth=0)
                axes.errorbar(
                    held, 100 * means, 100 * halves, color=colour, marker=marker, markersize=5, linewidth=1.8, label=mix
                )
            axes.set_xscale("log")
            axes.set_xticks(held, [f"{h:g}" for h in held])
            axes.minorticks_off()
            axes.set_title(engine, fontsize=10, loc="left")
            axes.set_xlabel("KV capacity over the longest request")
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0][0].set_ylabel("GPU seconds saved, %")
        panels[0][0].set_ylim(0, None)
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
        figure.tight_layout(rect=(0, 0.12, 1, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)
