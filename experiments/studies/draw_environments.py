"""Moving pictures of the environments.

python -m experiments.studies.draw_environments --out docs/pictures/environments

A rule plays one short episode of each id; every so many decisions give one frame of `render_mode="rgb_array"`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

import infermax_gym  # noqa: F401  registers the ids
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.envs import KnobsTeacher, PolicyTeacher, RouterTeacher

FRAMES, WIDTH, MILLISECONDS = 40, 720, 160


def _policy(env: Any) -> Callable[[], Any]:
    teacher = PolicyTeacher(POLICIES["spf-headroom"], env.layout)
    return lambda: teacher.action(env)


def _knobs(env: Any) -> Callable[[], Any]:
    action = KnobsTeacher(POLICIES["spf-headroom"], env.config.max_num_seqs).action()
    return lambda: action


def _router(env: Any) -> Callable[[], Any]:
    teacher = RouterTeacher(ROUTERS["least-outstanding"])
    return lambda: teacher.action(env.run)


PLAYED: dict[str, tuple[Callable[[Any], Callable[[], Any]], dict[str, Any]]] = {
    "InferMax-v0": (_policy, {"num_requests": 80, "num_kv_tokens": 12_000}),
    "InferMaxLongContext-v0": (_policy, {}),
    "InferMaxKnobs-v0": (_knobs, {"num_requests": 120, "num_kv_tokens": 12_000}),
    "InferMaxRouter-v0": (_router, {"num_requests": 200}),
}


def frames(name: str) -> list[np.ndarray[Any, Any]]:
    """Pictures of one episode, evenly spaced over its decisions."""
    rule, settings = PLAYED[name]
    env = gym.make(name, render_mode="rgb_array", **settings)
    env.reset(seed=0)
    action, shown, done = rule(env.unwrapped), [], False
    while not done:
        *_, terminated, truncated, _ = env.step(action())
        done = terminated or truncated
        shown.append(np.asarray(env.render()))
    return [shown[place] for place in np.linspace(0, len(shown) - 1, FRAMES).astype(int)]


def main(arguments: list[str] | None = None) -> None:
    """Play and draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the GIF files go")
    parser.add_argument("--only", nargs="+", choices=list(PLAYED), default=list(PLAYED), help="draw these; default: all")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        pictures = [Image.fromarray(frame) for frame in frames(name)]
        height = round(WIDTH * pictures[0].height / pictures[0].width)
        first, *rest = (picture.resize((WIDTH, height)).quantize(32) for picture in pictures)
        target = options.out / f"{name}.gif"
        first.save(target, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0, optimize=True)


if __name__ == "__main__":
    main()
