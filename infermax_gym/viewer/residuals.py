"""A picture of a fit: what each measured batch took against what the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infermax_gym.files import atomic

_COLOURS = {"decode": "#0072b2", "prefill": "#d55e00", "mixed": "#009e73"}  # told apart without colour vision, too


def draw_residuals(
    path: str | Path,
    num_tokens: NDArray[np.float64],
    seconds: NDArray[np.float64],
    predicted_s: NDArray[np.float64],
    regions: NDArray[np.str_],
    held_out: NDArray[np.bool_],
    title: str,
) -> None:
    """Write a picture with two panels: predicted against measured, and the relative error over tokens.

    Args:
        path: of the file; its ending says the format.
        num_tokens: (n,) tokens of each batch.
        seconds: (n,) measured.
        predicted_s: (n,) what the model says.
        regions: (n,) decode, prefill or mixed.
        held_out: (n,) whether the fit saw the batch; those it did not are filled.
        title: over the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    error = 100.0 * (predicted_s / seconds - 1.0)
    for region, colour in _COLOURS.items():
        for seen, fill in ((True, "none"), (False, colour)):
            which = (regions == region) & (held_out != seen)
            if not which.any():
                continue
            label = None if seen else f"{region}, held out"
            style = {"s": 18, "facecolors": fill, "edgecolors": colour, "linewidths": 0.8, "label": label}
            left.scatter(1e3 * seconds[which], 1e3 * predicted_s[which], **style)
            right.scatter(num_tokens[which], error[which], **style)
    ends = [1e3 * float(seconds.min()), 1e3 * float(seconds.max())]
    left.plot(ends, ends, color="0.6", linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="model (ms)")
    right.axhline(0.0, color="0.6", linewidth=1)
    right.set(xscale="log", xlabel="tokens of the batch", ylabel="model over measured - 1 (%)")
    left.legend(frameon=False)
    figure.suptitle(title)
    with atomic(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=130)
