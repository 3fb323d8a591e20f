"""Cards of schema 1 used other words: they load to the same policy, and are written in today's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from infermax_gym.agents import Agent, cards, load_agent, save_agent, storage
from infermax_gym.agents.controller import Controller, GatingNetwork
from infermax_gym.agents.controller_layout import NUM_FEATURES, NUM_KNOBS
from infermax_gym.agents.serialization import FORMERLY
from infermax_gym.baselines.policies import POLICIES

FORMER_OF = {now: former for former, now in FORMERLY.items()}


def in_former_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {FORMER_OF.get(key, key): in_former_words(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_former_words(item) for item in value]
    return FORMER_OF.get(value, value) if isinstance(value, str) else value


def words_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(words_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(words_in, value))
    return {value} if isinstance(value, str) else set()


def write_schema_1(path: Path) -> set[str]:
    """Write a file again as schema 1 wrote it; returns the former words in it, names of weights included."""
    card, tensors = cards._parse(path.read_bytes())
    for part in ("policy", "controller", "interface", "kind"):
        if part in card:
            card[part] = in_former_words(card[part])
    former = {FORMER_OF.get(name, name): array for name, array in tensors.items()}
    card["schema"] = 1
    card["sha256"] = cards.digest(former, card)
    path.write_bytes(safetensors.numpy.save(former, {"infermax_agent": json.dumps(card)}))
    return (words_in(card) | set(former)) & set(FORMERLY)


def gated() -> Controller:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=shape).astype(np.float32) for shape in ((2, NUM_KNOBS, NUM_FEATURES), (3, NUM_FEATURES))]
    outer = rng.normal(size=(2, 4)).astype(np.float32)
    return Controller(parts[0], gating=GatingNetwork(parts[1], outer))


def test_a_policy_and_a_controller_of_schema_1_are_read(tmp_path: Path) -> None:
    policy, controller = POLICIES["fastserve"], gated()
    save_agent(tmp_path / "policy", Agent("some-policy", policy=policy))
    save_agent(tmp_path / "controller", Agent("some-controller", controller=controller))
    met = write_schema_1(tmp_path / "policy") | write_schema_1(tmp_path / "controller")
    assert met == set(FORMERLY)
    assert load_agent(tmp_path / "policy").policy == policy
    again = load_agent(tmp_path / "controller").controller
    assert again is not None and again.gating is not None and controller.gating is not None
    np.testing.assert_array_equal(again.weights, controller.weights)
    np.testing.assert_array_equal(again.gating.inner, controller.gating.inner)
    np.testing.assert_array_equal(again.gating.outer, controller.gating.outer)
    assert (again.interval_s, again.estimates_lengths, again.prior) == (2.0, True, (5.5, 1.2, 4.0))


@pytest.mark.parametrize("name", sorted(path.stem for path in storage.ZOO.glob("*.safetensors")))
def test_saving_a_shipped_agent_writes_schema_2(name: str, tmp_path: Path) -> None:
    save_agent(tmp_path / "again", load_agent(name))
    card, tensors = cards._parse((tmp_path / "again").read_bytes())
    assert card["schema"] == 2
    about_policy = {part: value for part, value in card.items() if part not in ("training", "held_out", "note")}
    assert not (words_in(about_policy) | set(tensors)) & set(FORMERLY)
