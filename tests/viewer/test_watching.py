"""Policies watched: what is shown is what the engine holds, and stopping changes nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.envs.terminal import bar, sparkline
from infermax_gym.viewer.watching import Watched, side_by_side
from infermax_gym.workload import Workload

CONFIG = EngineConfig(num_kv_tokens=640)


@pytest.fixture(scope="module")
def workload() -> Workload:
    rng = np.random.default_rng(3)
    return Workload(0.05 * np.arange(40), rng.integers(5, 200, 40), rng.integers(1, 120, 40))


@pytest.mark.parametrize("name", ["vllm-0.13", "srf"])
def test_a_watched_run_is_the_run(name: str, workload: Workload) -> None:
    watched = Watched(name, workload, CONFIG, POLICIES[name])
    moment = 0.0
    while not watched.is_over:
        moment += 0.5
        watched.advance(moment)
        view = watched.view
        held = sum(-(-holder.computed // CONFIG.block_size) for holder in view.holders)
        assert held <= round(view.used * CONFIG.num_kv_tokens / CONFIG.block_size) <= CONFIG.num_kv_tokens
        assert view.num_prefills + view.num_decodes == len(view.holders)
        assert all(0 <= holder.computed <= holder.known for holder in view.holders)
    result = simulate(workload, CONFIG, POLICIES[name])
    assert watched.view.num_finished == 40 and watched.view.num_preemptions == result.num_preemptions
    assert watched.view.latency_s == pytest.approx(float(result.latency_s.mean()), rel=1e-12)
    assert watched.view.ttft_s == pytest.approx(float(result.ttft_s.mean()), rel=1e-12)


def test_a_step_is_an_iteration(workload: Workload) -> None:
    result = simulate(workload, CONFIG, POLICIES["vllm"], record_schedule=True)
    watched = Watched("vllm", workload, CONFIG, POLICIES["vllm"])
    assert result.schedule is not None
    for iteration in result.schedule[:30]:
        watched.step()
        assert watched.clock_s == pytest.approx(iteration.end_s, rel=1e-12)


@pytest.mark.parametrize(("width", "height"), [(80, 14), (130, 24), (200, 50)])
def test_panels_fill_their_place_and_no_more(width: int, height: int, workload: Workload) -> None:
    pair = [Watched(name, workload, CONFIG, POLICIES[name]) for name in ("vllm-0.13", "hrrn")]
    for one in pair:
        one.advance(1.5)
    console = Console(width=width, file=io.StringIO())
    lines = console.render_lines(side_by_side(pair, width, height, "keys"))
    texts = ["".join(segment.text for segment in line) for line in lines]
    assert len(texts) == height and all(len(text) <= width for text in texts)
    shown = "\n".join(texts)
    assert all(word in shown for word in ("vllm-0.13", "hrrn", "KV cache", "preempted", "waiting", "keys"))


def test_bars_and_lines() -> None:
    half = bar([(0.25, "red"), (0.25, "blue")], 8)
    assert half.plain == "████    " and [str(span.style) for span in half.spans[:2]] == ["red", "blue"]
    assert bar([(0.3, "red")], 10).plain == "███       " and len(bar([(2.0, "red")], 5).plain) == 5
    assert sparkline([0.0, 0.01, 4.0, 8.0], 8.0, "red").plain == " ▁▄█"
