"""What `tune` may be fooled by: objectives with holes, luck, and windows that are no strangers to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from infermax_gym.engine import EngineConfig, Policy, Slo, simulate, summarize
from infermax_gym.evaluation.scenario import WorkloadSpec
from infermax_gym.evaluation.tuning_cost import cost_figures
from infermax_gym.evaluation.tuning_objective import COST, LATENCY, Objective, gain, goodput, score
from infermax_gym.evaluation.tuning_search import Candidate, Trials, halve, pruned, rungs
from infermax_gym.evaluation.tuning_space import (
    SPACES,
    VLLM,
    Choice,
    Setting,
    changes,
    children,
    first_settings,
    is_valid,
    values_of,
)
from infermax_gym.evaluation.tuning_windows import search_and_held_out, split
from infermax_gym.evaluation.tuning_workers import OutOfTime
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

OPEN, CLOSED = goodput(closed_loop=False), goodput(closed_loop=True)


def figures(value: float, num_finished: int = 10, num_rejected: int = 0) -> dict[str, Any]:
    return {
        "num_finished": num_finished,
        "num_rejected": num_rejected,
        "slo_attainment": value,
        "goodput_per_s": value,
        "latency_s": {"mean": value},
    }


@pytest.mark.parametrize("objective", [OPEN, CLOSED, LATENCY])
def test_shedding_never_wins(objective: Objective) -> None:
    """Whoever serves fewer requests than today's defaults is last, however good the rest looks."""
    today = [figures(0.5), figures(0.5)]
    perfect = 1.0 if objective.better == "high" else 0.001
    for shed in (figures(perfect, num_finished=9), figures(perfect, num_rejected=1, num_finished=9)):
        runs = [figures(perfect), shed]
        assert score(objective, runs, today) == -math.inf
        assert not gain(objective, runs, today).recommended
    assert gain(objective, [figures(perfect)] * 2, today).recommended


def test_rejecting_would_win_without_that_rule() -> None:
    """The hole is real: a memory too small for the long request lowers mean latency and raises goodput per second."""
    workload = Workload(np.zeros(5), np.full(5, 10), np.array([20, 20, 20, 20, 2000]))
    slo = Slo(latency_s=10.0)
    all_of_it, less = (
        summarize(simulate(workload, config, Policy("fcfs")), config, slo)
        for config in (EngineConfig(num_kv_tokens=4000), EngineConfig(num_kv_tokens=1000))
    )
    assert less["num_rejected"] == 1
    assert less["goodput_per_s"] > all_of_it["goodput_per_s"]
    assert less["latency_s"]["mean"] < all_of_it["latency_s"]["mean"]
    for objective in (CLOSED, LATENCY):
        assert score(objective, [less], [all_of_it]) == -math.inf


def test_open_traffic_gains_nothing_by_a_shorter_makespan() -> None:
    today, shorter = figures(1.0), {**figures(1.0), "goodput_per_s": 1.1}
    assert not gain(OPEN, [shorter] * 8, [today] * 8).excludes_none


def test_no_interval_no_gain() -> None:
    assert not gain(LATENCY, [figures(1.0)], [figures(9.0)]).recommended  # a single window
    assert not gain(LATENCY, [figures(math.nan)] * 3, [figures(1.0)] * 3).recommended
    assert gain(OPEN, [figures(0.3), figures(0.4)], [figures(0.0), figures(0.1)]).low == pytest.approx(0.3)


def test_luck_is_not_recommended() -> None:
    """The best of 50 settings that are all alike looks good in the search, and fails on windows it has not seen."""
    rng = np.random.default_rng(0)
    num_searched_good = num_recommended = 0
    for _ in range(400):
        noise = 10.0 * np.exp(rng.normal(0.0, 0.1, (51, 16)))
        best = 1 + int(noise[1:, :8].mean(axis=1).argmin())
        found, today = ([figures(v) for v in noise[k]] for k in (best, 0))
        num_searched_good += gain(LATENCY, found[:8], today[:8]).recommended
        num_recommended += gain(LATENCY, found[8:], today[8:]).recommended
    assert num_searched_good > 60
    assert num_recommended <= 0.05 * 400


class Instant:
    """Workers whose answers are looked up: a value by number of candidate, plus noise by window."""

    def __init__(self, values: Sequence[float], most: int = 10**9) -> None:
        self.values, self.left = values, most

    def results(self, function: object, items: Sequence[Any], until: float) -> Any:
        for item in items:
            self.left -= 1
            if self.left < 0:
                raise OutOfTime
            noise = float(np.random.default_rng([item.candidate, item.window]).normal(0.0, 0.2))
            yield item, figures(self.values[item.candidate] + noise)


def trials(values: Sequence[float], num_windows: int = 8, most: int = 10**9) -> tuple[Trials, list[Candidate]]:
    windows = [cast(Workload, None)] * num_windows
    found = Trials(windows, LATENCY, None, 0.9, cast(Any, Instant(values, most)), lambda: None)
    policy = Policy("fcfs")
    candidates = [
        Candidate(i, "flags", Setting({"a": Choice(i)} if i else {}), EngineConfig(), "fcfs", policy)
        for i in range(len(values))
    ]
    return found, candidates


def test_halving_finds_the_best_and_spends_its_runs_on_it() -> None:
    values = [5.0] * 81
    values[37] = 4.0
    found, candidates = trials(values)
    found.measure(candidates[:1], 8, 0.0)
    best, complete = halve(found, candidates, 0.0, lambda kept: [])
    assert complete
    assert best[0].id == 37
    assert [rung.num_windows for rung in found.rungs] == rungs(8) == [1, 2, 4, 8]
    assert [len(rung.tried) for rung in found.rungs] == [81, 27, 9, 3]
    assert len(found.runs) < 81 * 8 / 4


def test_halving_that_runs_out_of_time_answers_with_its_last_rung() -> None:
    values = [5.0] * 20
    values[7] = 1.0
    found, candidates = trials(values, most=8 + 19 + 3)
    found.measure(candidates[:1], 8, 0.0)
    best, complete = halve(found, candidates, 0.0, lambda kept: [])
    assert (best[0].id, complete) == (7, False)
    found, candidates = trials(values, most=8 + 10)
    found.measure(candidates[:1], 8, 0.0)
    best, complete = halve(found, candidates, 0.0, lambda kept: [])
    assert (best[0].id, len(best), complete) == (7, 11, False)


def test_flags_that_do_nothing_are_dropped() -> None:
    names = ("helps", "idles")
    found, _ = trials([5.0, 4.0, 4.0, 5.0], num_windows=2)
    policy, config = Policy("fcfs"), EngineConfig()
    both = Candidate(1, "flags", Setting({n: Choice(1) for n in names}), config, "fcfs", policy)
    alone = {
        name: Candidate(2 + i, "flags", Setting({name: Choice(1)}), config, "fcfs", policy)
        for i, name in enumerate(names)
    }
    found.workers = cast(Any, Exact([5.0, 4.0, 4.0, 5.0]))
    found.measure([both, Candidate(0, "today", Setting(), config, "fcfs", policy)], 2, 0.0)
    best, complete = pruned(found, both, 0.0, lambda setting: alone[next(iter(setting.choices))])
    assert complete
    assert list(best.setting.choices) == ["helps"]


class Exact(Instant):
    """The same without noise."""

    def results(self, function: object, items: Sequence[Any], until: float) -> Any:
        for item in items:
            yield item, figures(self.values[item.candidate])


@pytest.mark.parametrize("backend", list(SPACES))
def test_settings_are_valid_different_and_the_seeds(backend: str) -> None:
    space, config = SPACES[backend], EngineConfig(max_num_batched_tokens=8192, max_num_seqs=1024)
    one, two, other = (first_settings(space, config, stream(seed, "exploration"), 30) for seed in (0, 0, 1))
    assert [each.key for each in one] == [each.key for each in two] != [each.key for each in other]
    assert len({each.key for each in one}) == len(one)
    assert one[0] == Setting()
    assert all(is_valid(each, space, config) for each in [*one, *children(one[1:], space, config, 100)])
    assert len(one) > len(changes(space, config)) * 0.9
    assert values_of(space, Setting(), config)[space.flags[0].name] == 8192


def test_vllm_refuses_more_sequences_than_tokens() -> None:
    config = EngineConfig(max_num_batched_tokens=1024, max_num_seqs=256)
    (many,) = (c for c in VLLM.flag("--max-num-seqs").choices if c.value == 1024)
    (few,) = (c for c in VLLM.flag("--max-num-batched-tokens").choices if c.value == 1024)
    assert is_valid(Setting({"--max-num-seqs": many}), VLLM, config)
    assert not is_valid(Setting({"--max-num-seqs": Choice(2048, (("max_num_seqs", 2048),))}), VLLM, config)
    assert is_valid(Setting({"--max-num-seqs": many, "--max-num-batched-tokens": few}), VLLM, config)


def test_windows_share_no_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = "\n".join(f"{0.1 * i},{i + 1},2" for i in range(100))
    path.write_text(f"arrival_s,num_prompt_tokens,num_output_tokens\n{rows}\n")
    spec = WorkloadSpec(str(path), skip=7, first=90)
    search, held_out = search_and_held_out(spec, 4, 10)
    seen = [each(k).num_prompt_tokens.tolist() for each in (search, held_out) for k in range(4)]
    prompts = [prompt for window in seen for prompt in window]
    assert len(set(prompts)) == len(prompts) == 80
    assert (min(prompts), max(prompts)) == (8, 97)
    assert max(max(window) for window in seen[:4]) < min(min(window) for window in seen[4:])
    later = WorkloadSpec(str(path), skip=held_out.spec.skip, first=40)
    assert [split(later, 4)(k).num_prompt_tokens.tolist() for k in range(4)] == seen[4:]


def test_seeds_of_a_preset_are_not_searched_and_judged_alike() -> None:
    search, held_out = search_and_held_out(WorkloadSpec("azure-conv", first=20), 3, 10)
    seen = {tuple(each(k).num_prompt_tokens.tolist()) for each in (search, held_out) for k in range(3)}
    assert len(seen) == 6
    assert held_out(1).num_prompt_tokens.tolist() == WorkloadSpec("azure-conv", first=20)(1).num_prompt_tokens.tolist()


def test_cost_is_of_rented_gpus_at_the_highest_rate() -> None:
    workload = WorkloadSpec("azure-conv", first=60)(0)
    config = EngineConfig(max_num_seqs=16)
    config = replace(config, cost=replace(config.cost, price_usd_per_device_hour=3.6, num_devices=2))
    found = cost_figures(Policy("fcfs"), workload, config, Slo(ttft_s=0.5), 0.9)
    rate, per_million = found["rate_per_s"], found["usd_per_million_tokens"]
    assert rate is not None
    assert per_million is not None
    assert found["usd_per_h"] == pytest.approx(7.2)
    assert per_million == pytest.approx(1e6 * 7.2 / 3600.0 / (rate * workload.num_output_tokens.mean()))
    assert COST.value({"cost": found}) == per_million
    slow = cost_figures(Policy("fcfs"), workload, replace(config, max_num_seqs=1), Slo(ttft_s=0.5), 0.9)
    assert cast(float, slow["usd_per_million_tokens"]) > per_million
