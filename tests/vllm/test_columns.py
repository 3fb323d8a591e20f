"""All keys set at once are those set one by one, to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from infermax_gym.cost import COSTS
from infermax_gym.engine.policy import QueueOrder
from infermax_gym.vllm.columns import INDEX, KEY, PREDICTION, SLOPE, describe
from infermax_gym.vllm.keys import queue_keys, set_queue_key
from infermax_gym.vllm.lengths import Lengths
from infermax_gym.vllm.requests import Seen
from infermax_gym.vllm.settings import read_settings
from tests.vllm import fakes

COST = COSTS["llama2-7b-a100"]


def waiting(rng: np.random.Generator, count: int) -> list[Seen]:
    """Requests of every kind: new or preempted, with or without a prediction, a limit, a history of their group."""
    entries = []
    for r in range(count):
        generated = int(rng.integers(1, 3000)) if rng.random() < 0.4 else 0
        prompt = int(rng.integers(1, 5000))
        request = fakes.request(str(r), prompt, num_tokens=prompt + generated, num_output_tokens=generated)
        entry = Seen(request, r, float(rng.uniform(0.0, 50.0)), slo_ttft_s=float(rng.choice([0.0, 2.0])))
        if rng.random() < 0.5:
            entry.first_prediction = entry.prediction = float(rng.uniform(1.0, 2000.0))
        entry.index, entry.group = float(rng.normal()), int(rng.integers(1, 20))
        entries.append(entry)
    return entries


@pytest.mark.parametrize("order", [QueueOrder.LINEAR, QueueOrder.RESPONSE_RATIO, QueueOrder.LOAD_ADAPTIVE])
def test_keys(order: QueueOrder) -> None:
    rng = np.random.default_rng(order)
    for _ in range(20):
        entries = waiting(rng, 50)
        weights = np.where(rng.random(16) < 0.5, rng.normal(size=16), 0.0).tolist()
        for entry in entries:
            set_queue_key(entry, order, weights, COST)
        table = np.array([describe(entry, COST) for entry in entries]).T
        keys, slopes = queue_keys(table, order, weights)
        assert keys.tolist() == table[KEY].tolist()
        assert np.broadcast_to(slopes, keys.shape).tolist() == table[SLOPE].tolist()


@pytest.mark.parametrize("agent", ["generalist", "informed"])
def test_length_estimates(agent: str) -> None:
    rng = np.random.default_rng(1)
    settings = read_settings({"infermax": {"agent": agent, "without": ["preempt"], "cost": "llama2-7b-a100"}})
    assert settings.controller is not None
    lengths = Lengths(settings.controller)
    lengths.learn((int(rng.integers(1, 16)), int(rng.integers(1, 4000))) for _ in range(200))
    lengths.set(rng.uniform(-1.0, 1.0, 64).tolist(), 60.0)
    entries = waiting(rng, 300)
    table = np.array([describe(entry, None) for entry in entries]).T
    lengths.estimate_waiting(table)
    for entry in entries:
        lengths.estimate(entry)
    assert table[PREDICTION].tolist() == [entry.prediction for entry in entries]
    assert table[INDEX].tolist() == [entry.index for entry in entries]
    for entry in entries:
        entry.known_at_admission = 1
        lengths.estimate(entry)
    one_by_one = [(entry.prediction, entry.index) for entry in entries]
    generated = np.array([entry.generated for entry in entries], np.float64)
    lengths.estimate_running(entries, np.array([entry.known for entry in entries], np.float64), generated)
    assert [(entry.prediction, entry.index) for entry in entries] == one_by_one
    assert not any(math.isnan(index) for _, index in one_by_one)
