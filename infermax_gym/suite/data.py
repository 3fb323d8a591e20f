"""Offline data sets of the tasks in Minari's format, with Croissant metadata beside them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from infermax_gym.suite.tasks import VERSION, Task, short_name
from infermax_gym.suite.trajectories import Kind, Trajectory, trajectories

_FOLDER = "MINARI_DATASETS_PATH"
_WHO = {
    "random": "any legal action alike",
    "default": "the best default policy of the task, as far as its actions can express it",
    "expert": "shortest prompt first with a cap on running requests that was tuned on training episodes",
    "optimal": "plans of the solver with the least mean latency, proven optimal",
}


def dataset_id(task: Task, kind: Kind) -> str:
    """The name of a data set, such as `infermax/toy/optimal-v1`."""
    return f"infermax/{short_name(task)}/{kind}-{VERSION}"


def make_dataset(task: Task, kind: Kind, folder: Path, num_episodes: int) -> Path:
    """Play episodes of the training split and write them; returns the folder of the data set.

    Args:
        task: the task.
        kind: who plays.
        folder: of all data sets; Minari reads it where MINARI_DATASETS_PATH names it.
        num_episodes: how many.

    Raises:
        SuiteError: nobody of this kind plays the task.
        ModuleNotFoundError: Minari is not installed.
        ValueError: the data set is there already.
    """
    import minari
    from minari.data_collector import EpisodeBuffer

    played = list(trajectories(task, kind, num_episodes))
    returns = [float(t.rewards.sum()) for t in played]
    where = folder / dataset_id(task, kind)
    if where.exists():
        raise ValueError(f"{where}: is there already; remove it or choose another folder")
    with _minari_folder(folder):
        minari.create_dataset_from_buffers(
            dataset_id(task, kind),
            [_buffer(EpisodeBuffer, i, t) for i, t in enumerate(played)],
            env=gym.make(task.id),
            algorithm_name=kind,
            description=f"{task.title}. Played by {_WHO[kind]}. Mean return {np.mean(returns):.6g}.",
        )
    (where / "croissant.json").write_text(json.dumps(croissant(task, kind, where), indent=2) + "\n", encoding="utf-8")
    return where


def _buffer(make: Any, index: int, t: Trajectory) -> Any:
    ends = np.zeros(len(t.actions), bool)
    ends[-1:] = True
    return make(
        id=index,
        seed=t.seed,
        observations=t.observations,
        actions=t.actions,
        rewards=t.rewards,
        terminations=ends,
        truncations=ends & t.truncated,
        infos={},
    )


def croissant(task: Task, kind: Kind, where: Path) -> dict[str, Any]:
    """Croissant metadata (JSON-LD, mlcommons.org/croissant 1.0) of a data set that lies in a folder."""
    files = sorted(path for path in where.rglob("*") if path.is_file() and path.name != "croissant.json")
    return {
        "@context": {
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "dct": "http://purl.org/dc/terms/",
            "conformsTo": "dct:conformsTo",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset_id(task, kind).replace("/", "-"),
        "description": f"Trajectories of {task.id} ({task.title}), played by {_WHO[kind]}. Format: Minari.",
        "license": "https://www.apache.org/licenses/LICENSE-2.0",
        "version": "1.0.0",
        "keywords": ["LLM serving", "scheduling", "offline reinforcement learning"],
        "variableMeasured": ["observations", "actions", "rewards", "terminations", "truncations"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path.relative_to(where).as_posix(),
                "name": path.name,
                "contentUrl": path.relative_to(where).as_posix(),
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/x-hdf5" if path.suffix == ".hdf5" else "application/json",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in files
        ],
    }


def load_trajectories(task: Task, kind: Kind, folder: Path) -> list[Trajectory]:
    """The trajectories of a data set that `make_dataset` wrote.

    Raises:
        ModuleNotFoundError: Minari is not installed.
        FileNotFoundError: there is none.
    """
    import minari

    with _minari_folder(folder):
        episodes = list(minari.load_dataset(dataset_id(task, kind)).iterate_episodes())
    return [
        Trajectory(
            int(e.id),
            dict(e.observations),
            np.asarray(e.actions, np.int64),
            np.asarray(e.rewards),
            bool(e.truncations[-1]),
        )
        for e in episodes
    ]


def transitions(played: Sequence[Trajectory]) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """Decisions of trajectories of one engine, as networks take them.

    Returns:
        (n, N) flat observations (engine, waiting, running), (n, A) masks, (n,) actions.
    """
    flat = [
        np.concatenate(
            [t.observations[name][:-1].reshape(len(t.actions), -1) for name in ("engine", "waiting", "running")], 1
        )
        for t in played
    ]
    masks = [t.observations["action_mask"][:-1] != 0 for t in played]
    return np.concatenate(flat), np.concatenate(masks), np.concatenate([t.actions for t in played])


@contextmanager
def _minari_folder(folder: Path) -> Iterator[None]:
    """Minari reads and writes here for a while, and does not ask who the author is."""
    before = os.environ.get(_FOLDER)
    os.environ[_FOLDER] = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        if before is None:
            del os.environ[_FOLDER]
        else:
            os.environ[_FOLDER] = before
