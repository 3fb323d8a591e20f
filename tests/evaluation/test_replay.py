"""A log beside its replay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.evaluation.replay import compare, occupancy, occupancy_error, real_figures
from infermax_gym.workload import Workload
from infermax_gym.workload.request_log import RequestLog

WORKLOAD = Workload(np.arange(40) * 0.05, [40 + 7 * i % 90 for i in range(40)], [2 + 11 * i % 50 for i in range(40)])
ENGINE = EngineConfig(num_kv_tokens=2_000, max_num_seqs=8)


def log_of(result: SimulationResult) -> RequestLog:
    """What a log of that run would hold."""
    return RequestLog(result.workload, result.first_scheduled_s, result.first_token_s, result.finish_s)


@pytest.fixture(scope="module")
def result() -> SimulationResult:
    return simulate(WORKLOAD, ENGINE, POLICIES["vllm"])


def test_a_run_agrees_with_itself(result: SimulationResult) -> None:
    log = log_of(result)
    compared = compare(log, result)
    assert all(value == 0.0 for figures in compared["error"].values() for value in figures.values())
    assert compared["correlation"]["ttft_s"] == pytest.approx(1.0)
    assert compared["median_request_error"]["latency_s"] == 0.0
    assert occupancy_error(log, result, result.finished) == {"waiting": 0.0, "running": 0.0}


def test_errors_are_simulated_over_real_less_one(result: SimulationResult) -> None:
    log = log_of(result)
    slower = replace(log, finish_s=log.workload.arrival_s + 2.0 * log.latency_s)
    assert compare(slower, result)["error"]["latency_s"]["mean"] == pytest.approx(-0.5)
    chosen = np.arange(40) < 20
    assert compare(slower, result, chosen)["median_request_error"]["latency_s"] == pytest.approx(0.5)


def test_real_figures(result: SimulationResult) -> None:
    figures = real_figures(log_of(result))
    assert figures["makespan_s"] == result.makespan_s
    assert figures["throughput_requests_per_s"] == pytest.approx(40 / result.makespan_s)


def test_occupancy_counts() -> None:
    log = RequestLog(
        Workload([0.0, 1.0], [10, 20], [5, 5]), np.array([0.5, 3.0]), np.array([1.0, 4.0]), np.array([2.0, 6.0])
    )
    held = occupancy(log, np.array([0.25, 1.5, 2.5, 5.0, 7.0]))
    assert held.waiting.tolist() == [1, 1, 1, 0, 0]
    assert held.running.tolist() == [0, 1, 0, 1, 0]
    assert held.context_tokens.tolist() == [0.0, 12.5, 0.0, 22.5, 0.0]
    assert occupancy(log, np.array([0.75]), by_first_token=True).running.tolist() == [0]
