"""`infermax watch` as a moving picture: docs/pictures/watch.gif.

python -m experiments.studies.picture_watch --out docs/pictures/watch.gif
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.cost.engines import find_engine
from infermax_gym.engine import EngineConfig
from infermax_gym.viewer.watching import Watched, side_by_side
from infermax_gym.workload import load_workload

COLUMNS, LINES = 112, 25
FRAMES, LOOKS, MILLISECONDS = 70, 3, 110
_WIDE, _HIGH, _SIZE = 8, 17, 13
_PAPER, _INK = (15, 18, 25), (221, 226, 235)


def main() -> None:
    """Play two policies, and write what the terminal shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--policies", default="vllm,hrrn")
    parser.add_argument("--cost", default="qwen3-32b@h100x2")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=170.0, help="simulated")
    parser.add_argument("--out", type=Path, default=Path("runs/watch.gif"))
    options = parser.parse_args()
    workload = load_workload("azure-conv", first=3000, rate=options.rate)
    engine = find_engine(options.cost)
    sizes: dict[str, Any] = engine.sizes
    config = EngineConfig(cost=engine.cost, **sizes)
    watched = [
        Watched(name, workload, config, POLICIES[name], predictions(POLICIES[name], workload))
        for name in options.policies.split(",")
    ]
    console = Console(width=COLUMNS, height=LINES, force_terminal=True, color_system="truecolor")
    kept = []
    for number, moment in enumerate(np.linspace(0.0, options.seconds, LOOKS * FRAMES)):
        for one in watched:
            one.advance(float(moment))
        if number % LOOKS == LOOKS - 1:
            kept.append(_drawn(console, side_by_side(watched, COLUMNS, LINES)).quantize(48))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept[0].save(options.out, save_all=True, append_images=kept[1:], duration=MILLISECONDS, loop=0, optimize=True)
    print(f"{options.out}: {len(kept)} frames, {options.out.stat().st_size / 1e6:.2f} MB")


def _drawn(console: Console, view: Any) -> Any:
    """A frame as a picture, character by character; blocks are drawn as rectangles, so that they join."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"DejaVuSansMono{kind}.ttf", _SIZE) for kind in ("", "-Bold")]
    image = Image.new("RGB", (COLUMNS * _WIDE + 16, LINES * _HIGH + 16), _PAPER)
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(console.render_lines(view)):
        column = 0
        for segment in line:
            style = segment.style
            colour = (
                tuple(style.color.get_truecolor()) if style and style.color and not style.color.is_default else _INK
            )
            ground = tuple(style.bgcolor.get_truecolor()) if style and style.bgcolor else None
            for letter in segment.text:
                x, y = 8 + column * _WIDE, 8 + row * _HIGH
                if ground:
                    pen.rectangle((x, y + 2, x + _WIDE - 1, y + _HIGH - 3), ground)
                block = _block(letter)
                if block is not None:
                    left, top = block
                    inset = 2 if top == 0.0 else 1
                    box = (x, y + inset + round(top * (_HIGH - 3)), x + round(left * _WIDE) - 1, y + _HIGH - inset - 1)
                    if box[2] >= box[0]:
                        pen.rectangle(box, colour)
                elif letter != " ":
                    pen.text((x, y), letter, colour, fonts[bool(style and style.bold)])
                column += 1
    return image


def _block(letter: str) -> tuple[float, float] | None:
    """How far a block reaches to the right, and where it begins from above, as shares; None for other letters."""
    wide, high = "▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇"
    if letter in wide:
        return (wide.index(letter) + 1) / 8.0, 0.0
    if letter in high:
        return 1.0, 1.0 - (high.index(letter) + 1) / 8.0
    return None


if __name__ == "__main__":
    main()
