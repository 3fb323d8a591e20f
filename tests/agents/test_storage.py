"""Trained policies on disk: what is written is read back, and everything else gets one clear line."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from infermax_gym.agents import Agent, AgentError, list_agents, load_agent, save_agent
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.serialization import policy_from_json, policy_to_json
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, Information, simulate
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.workload import make_workload

CONFIG = EnvConfig(num_waiting_slots=4, num_running_slots=3, base=POLICIES["spf-headroom"])


def scorer(name: str = "some-scorer") -> Agent:
    torch.manual_seed(0)
    network = ScorerNetwork(CONFIG.layout, CONFIG.level_shares, 8)
    return Agent(name, network=network, config=CONFIG, card={"note": "a test", "training": {"seed": 3}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "agent.safetensors"
    save_agent(where, scorer())
    return where


def fails(path: Path) -> str:
    with pytest.raises(AgentError) as caught:
        load_agent(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_scorer_survives(path: Path) -> None:
    agent, again = scorer(), load_agent(path)
    assert again.name == "some-scorer" and again.kind == "scorer" and again.note == "a test"
    assert again.card["training"] == {"seed": 3} and "numpy" in again.card["versions"]
    assert again.config is not None and again.config.layout == CONFIG.layout and again.config.base == CONFIG.base
    assert agent.network is not None and again.network is not None
    for name, weight in agent.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name])


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_row_survives(name: str) -> None:
    policy = POLICIES[name]
    again = policy_from_json(json.loads(json.dumps(policy_to_json(policy))))
    assert again == policy and again.source == policy.source


def test_row_plays_as_the_table_does(tmp_path: Path) -> None:
    save_agent(tmp_path / "row", Agent("row", policy=POLICIES["spf-headroom"]))
    agent = load_agent(tmp_path / "row")
    workload, engine = make_workload("azure-conv", 100, seed=1), EngineConfig(num_kv_tokens=20_000)
    ours, theirs = agent.play(workload, engine), simulate(workload, engine, POLICIES["spf-headroom"])
    assert agent.information == Information.NONE
    assert np.array_equal(ours.finish_s, theirs.finish_s)


def test_same_bytes_for_the_same_agent(path: Path) -> None:
    first = path.read_bytes()
    save_agent(path, scorer())
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays behind


def test_truncated(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 5, 40, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        message = fails(path)
        assert "not a trained policy" in message or "truncated" in message


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 150):
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        fails(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert "no such file" in fails(path)
    assert "cannot be read" in fails(tmp_path)
    path.write_text("hello")
    assert "not a trained policy" in fails(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "not a trained policy" in fails(path)
    import safetensors.numpy

    path.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    assert "no card" in fails(path)


def test_archive_needs_trust(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
    assert "--trust-pickle" in fails(path)


def with_card(path: Path, **changes: object) -> None:
    """Write the file again with another card and the right hash for it."""
    import safetensors.numpy

    from infermax_gym.agents import cards

    card, tensors = cards._parse(path.read_bytes())
    card.update(changes)
    card["sha256"] = cards.digest(tensors, card)
    path.write_bytes(safetensors.numpy.save(tensors, {"infermax_agent": json.dumps(card)}))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"schema": 3}, "schema 3"),
        ({"kind": "tree"}, "kind 'tree'"),
        ({"observation": {"engine": ["free_blocks"]}}, "trained for other observations: its 1 engine features"),
        ({"network": {"width": 16}}, "another network"),
        ({"network": {"width": "wide"}}, "width"),
        ({"network": None}, "width"),
        ({"interface": {"base": {}}}, "interface has no 'num_waiting_slots'"),
        ({"kind": "policy"}, "policy must be an object"),
        (
            {"kind": "policy", "policy": {**policy_to_json(POLICIES["sarathi"]), "hybrid": 7}},
            "hybrid must be of type bool",
        ),
        ({"kind": "policy", "policy": {**policy_to_json(POLICIES["sarathi"]), "code": "x"}}, "unknown entry 'code'"),
        (
            {"kind": "policy", "policy": {**policy_to_json(POLICIES["sarathi"]), "reserve": "X"}},
            "reserve must be one of",
        ),
        ({"kind": "policy", "policy": {**policy_to_json(POLICIES["sarathi"]), "max_chunk": 0}}, "max_chunk"),
    ],
    ids=str,
)
def test_wrong_cards(path: Path, changes: dict[str, object], hint: str) -> None:
    with_card(path, **changes)
    assert hint in fails(path)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    agent = scorer()
    assert agent.network is not None
    with torch.no_grad():
        agent.network.kind[0].bias[0] = torch.nan
    with pytest.raises(AgentError, match="not finite"):
        save_agent(tmp_path / "x", agent)
    assert not list(tmp_path.iterdir())


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be written"):
        save_agent(tmp_path / "missing" / "x", scorer())


def test_shipped_policies_can_be_read() -> None:
    for row in list_agents():
        assert load_agent(row["name"]).kind == row["kind"]
