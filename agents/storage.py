"""Trained policies as files: safetensors whose metadata holds a JSON card. Reading one runs no code from it.

Card: schema, kind ("policy", "controller", "selector" or "scorer"), name, note, observation (feature names), interface
(of a scorer: slots, chunk budgets, `decide`, `information`, `base`), policy (every knob), controller (what its weights
connect), selector (its experts and settings), network (its sizes), training, versions, held_out (scores), and sha256
over everything else, weights included. Schema 1 used other words; it is read as well (`modern`).
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from infermax_gym import files
from infermax_gym.agents import missing_extra
from infermax_gym.agents.agent import Agent, AgentError
from infermax_gym.agents.cards import CARD, SCHEMA, SUFFIX, ZOO, Tensors, digest, read_card, resolve
from infermax_gym.agents.selector_card import selector_from_json, selector_tensors, selector_to_json
from infermax_gym.agents.serialization import (
    controller_from_json,
    controller_tensors,
    controller_to_json,
    interface_from_json,
    interface_to_json,
    policy_from_json,
    policy_to_json,
)
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES, RUNNING_FEATURES, WAITING_FEATURES

OBSERVATION = {"engine": ENGINE_FEATURES, "waiting": WAITING_FEATURES, "running": RUNNING_FEATURES}
_PACKAGES = ("infermax-gym", "numpy", "numba", "torch", "stable-baselines3", "sb3-contrib", "cma")


def save_agent(path: str | Path, agent: Agent) -> dict[str, Any]:
    """Write a trained policy; the file takes its place only once it is complete. Returns the card.

    Raises:
        AgentError: the weights are not finite, or the file cannot be written.
    """
    tensors: Tensors = {}
    if agent.network is not None:
        tensors = {name: np.ascontiguousarray(t.numpy()) for name, t in agent.network.state_dict().items()}
    if agent.controller is not None:
        tensors = controller_tensors(agent.controller)
    if agent.selector is not None:
        tensors = selector_tensors(agent.selector)
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise AgentError(f"{path}: not written, some weights are not finite")
    card = _card_of(agent)
    card["sha256"] = digest(tensors, card)
    data = safetensors.numpy.save(tensors, {CARD: json.dumps(card, sort_keys=True, allow_nan=False)})
    write_bytes(Path(path), data)
    return card


def _card_of(agent: Agent) -> dict[str, Any]:
    card: dict[str, Any] = {**agent.card, "schema": SCHEMA, "kind": agent.kind, "name": agent.name}
    card.setdefault("versions", _versions())
    card["observation"] = {name: list(features) for name, features in OBSERVATION.items()}
    if agent.policy is not None:
        card["policy"] = policy_to_json(agent.policy)
    elif agent.controller is not None:
        card["controller"] = controller_to_json(agent.controller)
    elif agent.selector is not None:
        card["selector"] = selector_to_json(agent.selector)
    else:
        assert agent.network is not None and agent.config is not None
        card["interface"] = interface_to_json(agent.config)
        card["network"] = {"width": agent.network.width, "num_weights": agent.network.num_weights}
    plain: dict[str, Any] = json.loads(json.dumps(card, allow_nan=False))
    return plain


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` into a file that takes its place only once it is complete.

    Raises:
        AgentError: it cannot be written.
    """
    try:
        files.write_bytes(path, data)
    except OSError as error:
        raise AgentError(f"{path}: cannot be written ({error.strerror})") from None


def load_agent(path: str | Path, *, trust_pickle: bool = False) -> Agent:
    """Read a trained policy, or one that is shipped, by its name.

    Args:
        path: the file, or a name that `list_agents` shows.
        trust_pickle: also read archives of stable-baselines3, which run code when they are read.

    Raises:
        AgentError: the file is missing, corrupt, of another kind, or made for other observations; one line.
        ModuleNotFoundError: it holds a network and torch is not installed; one line that names the extra.
    """
    where = resolve(path)
    try:
        data = files.read_bytes(where, files.MAX_CHECKPOINT_BYTES)
    except FileNotFoundError:
        raise AgentError(f"{path}: no such file, and no shipped policy has this name") from None
    except OSError as error:
        raise AgentError(f"{path}: cannot be read ({error.strerror})") from None
    if data.startswith(b"PK\x03\x04"):
        if trust_pickle:
            from infermax_gym.agents.archive import load_archive

            return load_archive(where)
        raise AgentError(
            f"{path}: looks like an archive of stable-baselines3; reading it runs code from the file, "
            "so it needs --trust-pickle"
        )
    try:
        return _read(data)
    except (ValueError, KeyError, TypeError) as error:
        raise AgentError(f"{path}: {error}") from None


def _read(data: bytes) -> Agent:
    card, tensors = read_card(data)
    name = str(card["name"])
    if card["kind"] == "policy":
        return Agent(name, policy=policy_from_json(card.get("policy")), card=card)
    if card["kind"] == "controller":
        return Agent(name, controller=controller_from_json(card.get("controller"), tensors), card=card)
    if card["kind"] == "selector":
        return Agent(name, selector=selector_from_json(card.get("selector"), tensors), card=card)
    if card["kind"] != "scorer":
        known = "policy, controller, selector and scorer"
        raise ValueError(f"holds a policy of kind {card['kind']!r}; this version knows {known}")
    _check_observation(card.get("observation"))
    return _scorer(name, card, tensors)


def _check_observation(stored: Any) -> None:
    for part, features in OBSERVATION.items():
        theirs = stored.get(part) if isinstance(stored, dict) else None
        if theirs != list(features):
            count = len(theirs) if isinstance(theirs, list) else 0
            raise ValueError(
                f"was trained for other observations: its {count} {part} features are not the {len(features)} of now; "
                "train it again"
            )


def _scorer(name: str, card: dict[str, Any], tensors: Tensors) -> Agent:
    try:
        import torch
    except ModuleNotFoundError:
        raise missing_extra("torch") from None

    from infermax_gym.agents.networks import ScorerNetwork

    config = interface_from_json(card.get("interface"))
    width = card["network"]["width"] if isinstance(card.get("network"), dict) else None
    if not isinstance(width, int) or not 1 <= width <= 4096:
        raise ValueError(f"card has no usable network width, got {width!r}")
    network = ScorerNetwork(config.layout, config.level_shares, width)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if {key: array.shape for key, array in tensors.items()} != expected:
        raise ValueError("holds weights of another network than its card says")
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in tensors.values()):
        raise ValueError("holds weights that are not finite float32 numbers")
    network.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in tensors.items()})
    return Agent(name, network=network, config=config, card=card)


def list_agents() -> list[dict[str, Any]]:
    """The shipped policies: name, kind, information and note."""
    rows = []
    for path in sorted(ZOO.glob(f"*{SUFFIX}")):
        agent = load_agent(path)
        information = agent.information.name.lower()
        rows.append({"name": path.stem, "kind": agent.kind, "information": information, "note": agent.note})
    return rows
