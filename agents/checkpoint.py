"""Checkpoints of PPO: safetensors with a JSON card. Reading one runs no code from it.

It holds the weights, Adam's moments, every random generator, and how the lanes came to stand where they stand
(`infermax_gym.agents.lane_history`). All of it is checked against the model that goes on.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from infermax_gym import files
from infermax_gym.agents.agent import AgentError
from infermax_gym.agents.lane_history import history_of
from infermax_gym.agents.ppo import TimedPPO
from infermax_gym.agents.storage import write_bytes
from infermax_gym.agents.vec_env import InferMaxVecEnv

FILE = "checkpoint.safetensors"
"""Name of a checkpoint in its run folder."""

_CARD = "infermax_checkpoint"
_SCHEMA = 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam

Arrays = dict[str, NDArray[Any]]


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        num_updates: rollouts collected and learned from.
        elapsed_s: time spent, also before a resumption.
        best_loss: mean ln(latency) on the validation trace slices of the best network so far.
        best: that network's weights.
        average: weights averaged over the updates ...
        num_averaged: ... and so many of them, those of the beginning included.
        since_best: evaluations since then.
        curve: (decisions, elapsed seconds, mean latency in seconds, geometric mean of them in seconds).
    """

    num_updates: int = 0
    elapsed_s: float = 0.0
    best_loss: float = float("inf")
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    num_averaged: int = 0
    since_best: int = 0
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)


def save_checkpoint(path: Path, model: TimedPPO, progress: Progress) -> None:
    """Write everything that training needs to go on exactly from here, atomically.

    Raises:
        AgentError: it cannot be written.
    """
    env = model.env
    assert isinstance(env, InferMaxVecEnv)
    optimizer = model.policy.optimizer.state_dict()["state"]
    legacy: Any = np.random.get_state()  # noqa: NPY002 - what stable-baselines3 draws from
    kind, keys, position, has_gauss, gauss = legacy
    version, words, python_gauss = random.getstate()
    card = {
        "schema": _SCHEMA,
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "numpy_rng": [kind, position, has_gauss, gauss],
        "python_rng": [version, list(words), python_gauss],
        "streams": env.history.as_json(),
        "num_actions": [len(actions) for actions in env.history.actions],
        "progress": {
            "num_updates": progress.num_updates,
            "elapsed_s": progress.elapsed_s,
            "best_loss": progress.best_loss if math.isfinite(progress.best_loss) else None,
            "num_averaged": progress.num_averaged,
            "since_best": progress.since_best,
            "curve": progress.curve,
        },
    }
    arrays: Arrays = {
        "torch_rng": torch.get_rng_state().numpy(),
        "numpy_rng": keys,
        "actions": np.array([action for actions in env.history.actions for action in actions], np.int64),
        "last_obs": np.asarray(model._last_obs),
        "last_starts": np.asarray(model._last_episode_starts, np.bool_),
        **_named("policy", model.policy.state_dict()),
        **_named("best", progress.best),
        **_named("average", progress.average),
    }
    for index, moments in optimizer.items():
        arrays.update(_named(f"adam/{index}", {name: moments[name] for name in _MOMENTS}))
    plain = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(plain, {_CARD: json.dumps(card, allow_nan=False)}))


def load_checkpoint(path: Path, model: TimedPPO) -> Progress:
    """Bring a fresh model of the same settings to where a checkpoint stood.

    Raises:
        AgentError: the file is missing, unusable, or of other settings.
    """
    try:
        data = files.read_bytes(path, files.MAX_CHECKPOINT_BYTES)
    except FileNotFoundError:
        old = path.with_name("checkpoint.pickle")
        hint = f"; {old.name} is of an older version, which this one does not read" if old.exists() else ""
        raise AgentError(f"{path}: no such checkpoint; there is nothing to resume{hint}") from None
    except OSError as error:
        raise AgentError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        card, arrays = _parse(data)
        return _restore(model, card, arrays)
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AgentError(f"{path}: is no usable checkpoint of these settings ({reason})") from None


def _named(prefix: str, tensors: dict[str, torch.Tensor]) -> Arrays:
    return {f"{prefix}/{name}": tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _parse(data: bytes) -> tuple[dict[str, Any], Arrays]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 9 or data[8:9] != b"{" or size > len(data):
        raise ValueError("expected a safetensors file with a card")
    try:
        card = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_CARD])
        arrays = safetensors.numpy.load(data)
    except (SafetensorError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if card["schema"] != _SCHEMA:
        raise ValueError(f"its schema is {card['schema']!r}; this version reads {_SCHEMA}")
    return card, arrays


def _restore(model: TimedPPO, card: dict[str, Any], arrays: Arrays) -> Progress:
    env = model.env
    assert isinstance(env, InferMaxVecEnv)
    history = history_of(card["streams"], card["num_actions"], _of_type(arrays["actions"], np.int64))
    starts = _of_type(arrays["last_starts"], np.bool_)
    if starts.shape != (env.num_envs,):
        raise ValueError(f"it has {starts.size} lanes, not {env.num_envs}")
    model.policy.load_state_dict(_tensors(arrays, "policy", model.policy.state_dict()))
    _restore_adam(model.policy.optimizer, arrays)
    progress = _progress(card["progress"], arrays, model)
    model.num_timesteps = _count(card["num_timesteps"])
    model._n_updates = _count(card["n_updates"])
    model._setup_learn(0, None, reset_num_timesteps=False)  # resets the lanes, whose states come next
    observation = np.asarray(env.set_state(history.replayed(env.lanes.config)))
    if not np.array_equal(observation, arrays["last_obs"]):
        raise ValueError("its episodes play differently here: it was made by another version")
    env.history = history.resumed(env.lanes)
    model._last_obs = observation
    model._last_episode_starts = starts
    kind, position, has_gauss, gauss = card["numpy_rng"]
    keys = _of_type(arrays["numpy_rng"], np.uint32)
    if kind != "MT19937" or len(keys) != 624 or not 0 <= _count(position) <= 624:
        raise ValueError("its random numbers are damaged")
    version, words, python_gauss = card["python_rng"]
    torch.set_rng_state(torch.from_numpy(_of_type(arrays["torch_rng"], np.uint8)))
    np.random.set_state((kind, keys, position, int(has_gauss), float(gauss)))  # noqa: NPY002
    random.setstate((version, tuple(words), python_gauss))
    return progress


def _restore_adam(optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Its moments; learning rates and the like come from the settings."""
    weights = optimizer.param_groups[0]["params"]
    for index, weight in enumerate(weights):
        if f"adam/{index}/step" not in arrays:
            continue  # no gradient has reached it yet
        shapes = {"step": torch.zeros(()), "exp_avg": weight, "exp_avg_sq": weight}
        optimizer.state[weight] = _tensors(arrays, f"adam/{index}", shapes)


def _tensors(arrays: Arrays, prefix: str, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, which must be those of `like` in names, shapes and types."""
    tensors = {}
    for name, expected in like.items():
        tensor = torch.from_numpy(arrays[f"{prefix}/{name}"])
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise ValueError(f"{prefix}/{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {expected.shape}")
        tensors[name] = tensor
    return tensors


def _progress(card: dict[str, Any], arrays: Arrays, model: TimedPPO) -> Progress:
    weights = model.policy.network.state_dict()
    best_loss = math.inf if card["best_loss"] is None else float(card["best_loss"])
    return Progress(
        num_updates=_count(card["num_updates"]),
        elapsed_s=float(card["elapsed_s"]),
        best_loss=best_loss,
        best=_tensors(arrays, "best", weights) if math.isfinite(best_loss) else {},
        average=_tensors(arrays, "average", weights),
        num_averaged=_count(card["num_averaged"]),
        since_best=_count(card["since_best"]),
        curve=[(_count(n), float(s), float(mean), float(geometric)) for n, s, mean, geometric in card["curve"]],
    )


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise ValueError(f"expected a number of things, got {str(value)[:40]}")
    return value


def _of_type(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"expected one dimension of {np.dtype(dtype)}, got {array.ndim} of {array.dtype}")
    return array
