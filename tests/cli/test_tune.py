"""`infermax tune` against its contract; its commands must give its figures."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.cli import inputs, tune_problem
from infermax_gym.cli.errors import InputError
from infermax_gym.cli.tune_commands import serve
from infermax_gym.cli.tune_hardware import engine_on
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.evaluation import tuning, tuning_search
from infermax_gym.evaluation.tuning_search import Task, measure
from infermax_gym.evaluation.tuning_space import SPACES, Choice, Setting
from tests.cli.conftest import Command

ONE = ("--jobs", 1, "--windows", 3, "--random-settings", 2)
SMALL = ("--kv-tokens", 1000, "--slo", "ttft=1,tpot=0.05", *ONE)


ALL = dict(SPACES)


@pytest.fixture(autouse=True)
def few_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of seconds: one value of each flag, three policies."""
    for backend, space in ALL.items():
        flags = tuple(replace(flag, choices=flag.choices[2:3] or flag.choices[:1]) for flag in space.flags)
        monkeypatch.setitem(SPACES, backend, replace(space, flags=flags))
    monkeypatch.setattr(tune_problem, "POLICIES", ("spf-headroom", "shortest-prompt-first", "rollout"))
    monkeypatch.setattr(tune_problem, "AGENTS", ())


def tune(command: Command, *arguments: object) -> dict[str, Any]:
    code, out, err = command("tune", *arguments, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def without_wall(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != "wall_s"}


def repeated(command: Command, document: dict[str, Any]) -> list[dict[str, Any]]:
    """What the printed `infermax` commands say."""
    lines = [shlex.split(line) for line in document["commands"] if line.startswith("infermax ")]
    return [json.loads(command(*words[1:], "--json").out) for words in lines]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_its_commands_give_its_figures(command: Command, trace: Path, engine: str) -> None:
    document = tune(command, "--workload", trace, *SMALL, "--engine", engine, "--rate", 20)
    parts = [document["today"], document["flags"], document["policy"]]
    parts = [part for i, part in enumerate(parts) if part["id"] not in [other["id"] for other in parts[:i]]]
    found = repeated(command, document)
    assert len(found) == len(parts)
    for part, again in zip(parts, found, strict=True):
        ((_, figures),) = again["policies"].items()
        assert without_wall(part["figures"]) == {name: figures[name] for name in without_wall(part["figures"])}
        assert without_wall(part["ci95"]) == without_wall(figures["ci95"])


def test_presets_are_judged_on_seeds(command: Command) -> None:
    document = tune(command, "--workload", "azure-conv", "--first", 20, "--rate", 50, *SMALL)
    assert "--seeds 3" in document["commands"][1]
    ((_, figures),) = repeated(command, document)[0]["policies"].items()
    assert figures["slo_attainment"] == document["today"]["figures"]["slo_attainment"]


def test_the_object_is_that_of_the_contract(command: Command, trace: Path, tmp_path: Path) -> None:
    document = tune(command, "--workload", trace, *SMALL, "--rate", 20, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tune.json").read_text()) == document
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tune.json"]
    assert document["schema"] == 1
    assert document["complete"]
    assert set(document["today"]["flags"]) == {flag.name for flag in SPACES["vllm"].flags if flag.needs is None}
    candidates = {each["id"]: each for each in document["candidates"]}
    assert list(candidates) == list(range(len(candidates)))
    assert {each["kind"] for each in candidates.values()} == {"today", "flags", "policy"}
    for part in ("today", "flags", "policy"):
        held_out = candidates[document[part]["id"]]["held_out"]
        assert sum(held_out) / 3 == pytest.approx(document[part]["figures"]["slo_attainment"])
    assert [rung["num_windows"] for rung in document["rungs"][:3]] == [1, 2, 3]
    assert all(set(rung["kept"]) <= set(rung["tried"]) for rung in document["rungs"])
    assert 0.0 <= document["today"]["figures"]["slo_attainment"] <= document["bound"] <= 1.0
    assert document["commands"][0].startswith("vllm serve MODEL")


def test_a_seed_gives_one_answer(command: Command, trace: Path) -> None:
    one, two = (tune(command, "--workload", trace, *SMALL, "--rate", 20) for _ in range(2))
    assert one["commands"] == two["commands"]
    assert [each["values"] for each in one["candidates"]] == [each["values"] for each in two["candidates"]]


def test_idle_engines_need_no_flags(command: Command, trace: Path) -> None:
    """Requests that never meet are served alike by whatever flags."""
    document = tune(command, "--workload", trace, "--rate", 0.01, "--slo", "ttft=5,tpot=1", *ONE)
    assert not document["flags"]["recommended"]
    assert document["flags"]["flags"] == {}
    assert document["flags"]["figures"] == document["today"]["figures"]
    assert any(line.startswith("Today's defaults are as good as any setting tried") for line in document["answer"])
    assert document["commands"][0] == "vllm serve MODEL"


def test_it_finds_a_setting_that_is_known_to_help(command: Command, trace: Path) -> None:
    """One sequence at a time is a bad default."""
    document = tune(command, "--workload", trace, "--rate", 20, "--max-num-seqs", 1, "--objective", "latency", *ONE)
    flags, today = document["flags"], document["today"]
    assert flags["recommended"]
    assert "--max-num-seqs" in flags["flags"]
    assert flags["gain"]["high"] < 1.0
    assert flags["figures"]["latency_s"]["mean"] < today["figures"]["latency_s"]["mean"]
    assert document["bound"] <= flags["figures"]["latency_s"]["mean"]


def test_clients_that_wait_are_judged_by_goodput(command: Command, trace: Path) -> None:
    document = tune(command, "--workload", trace, "--concurrency", 4, *SMALL)
    assert document["config"]["figure"] == "goodput_per_s"
    assert document["bound"] is None
    ((_, figures),) = repeated(command, document)[0]["policies"].items()
    assert figures["goodput_per_s"] == document["today"]["figures"]["goodput_per_s"]


def slow(task: Task) -> dict[str, Any]:
    time.sleep(0.1)
    return measure(task)


def test_the_budget_is_kept(command: Command, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_search, "measure", slow)
    monkeypatch.setitem(SPACES, "vllm", ALL["vllm"])
    arguments = ("--workload", trace, "--rate", 20, "--kv-tokens", 1000, "--slo", "ttft=1", "--jobs", 1)
    document = tune(command, *arguments, "--windows", 2, "--budget", "2s")
    assert document["wall_s"] < 2.5
    assert not document["complete"]
    assert "ran out of time" in document["answer"][-1]


def test_ctrl_c_keeps_the_best_so_far(
    command: Command, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halve = tuning.halve

    def interrupted(*arguments: Any) -> Any:
        halve(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "halve", interrupted)
    code, out, err = command("tune", "--workload", trace, *SMALL, "--out", tmp_path / "out", "--json")
    assert code == 130
    assert err.startswith("infermax: interrupted: ")
    assert len(err.splitlines()) == 1
    document = json.loads(out)
    assert document["interrupted"]
    assert not document["flags"]["recommended"]
    assert document["answer"][0] == "The held-out windows were not run, so nothing is recommended."
    assert document["answer"][1].startswith("Best so far: --")
    assert json.loads((tmp_path / "out" / "tune.json").read_text()) == document


def test_for_people(command: Command, trace: Path) -> None:
    code, out, _ = command("tune", "--workload", trace, *SMALL, "--rate", 20)
    assert code == 0
    assert "Today's defaults give" in out
    assert "infermax bench --workload" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "soon"), "--budget 'soon': expected a time such as 90, 60s, 2m or 1h"),
        (("--budget", "-1s"), "--budget '-1s': expected a time"),
        (("--objective", "goodput"), "--objective goodput needs limits: --slo"),
        (("--hardware", "h200", "--slo", "ttft=1"), "--hardware compares what tokens cost: add --objective cost"),
        (("--windows", 20, "--slo", "ttft=1"), "requests are too few for 40 windows of at least 5"),
        (
            ("--budget", "1e-6s", "--slo", "ttft=1", "--windows", 2),
            "--budget: half of 1e-06 s did not suffice for today's defaults",
        ),
    ],
)
def test_mistakes_have_a_line(command: Command, trace: Path, arguments: tuple[object, ...], message: str) -> None:
    code, out, err = command("tune", "--workload", trace, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_every_choice_means_something_here() -> None:
    """A flag whose value changes neither the engine nor its policy is not modelled, and must not be listed."""
    for space in ALL.values():
        today = replace(EngineConfig(max_num_batched_tokens=4000, max_num_seqs=100), **dict(space.sizes))
        default = inputs.policy(space.policy)
        for flag in space.flags:
            for choice in flag.choices:
                setting = Setting({flag.name: choice})
                decides = inputs.policy(setting.policy(space.policy))
                same = replace(decides, name=default.name) == default  # type: ignore[type-var]
                assert setting.sized(today) != today or not same, (space.backend, flag.name, choice.value)


def test_policies_to_try_know_no_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in tune_problem.POLICIES:
        policy = inputs.policy(name)
        assert getattr(policy, "information", 0) == 0, name
        assert not isinstance(policy, Policy) or policy.chunking, f"{name}: its budget is not the engine's"


def test_bench_takes_windows(command: Command, trace: Path) -> None:
    arguments = ("bench", "--workload", trace, "--policies", "vllm", "--kv-tokens", 1000, "--json")
    whole = json.loads(command(*arguments, "--skip", 3, "--first", 24, "--windows", 4).out)["policies"]["vllm"]
    each = [
        json.loads(command(*arguments, "--skip", 3 + 6 * k, "--first", 6).out)["policies"]["vllm"] for k in range(4)
    ]
    assert whole["latency_s"]["mean"] == pytest.approx(sum(one["latency_s"]["mean"] for one in each) / 4)
    assert whole["ci95"]["latency_s"]["mean"] > 0.0
    assert "--seeds exclude each other" in command(*arguments, "--windows", 2, "--seeds", 2).err
    preset = ("bench", "--workload", "azure-conv", "--windows", 2)
    assert "azure-conv is a preset, which has seeds: take --seeds 2" in command(*preset).err


COSTS = (
    "--workload", "azure-conv", "--first", 60, "--slo", "ttft=0.3", "--windows", 4, "--random-settings", 0,
    "--jobs", 1, "--cost", "llama-3.1-8b@h100", "--objective", "cost",
)  # fmt: skip


def test_cost_is_what_capacity_says_on_each_hardware(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_problem, "POLICIES", ())
    monkeypatch.setitem(SPACES, "vllm", replace(ALL["vllm"], flags=ALL["vllm"].flags[:1]))
    document = tune(command, *COSTS, "--hardware", "h200")
    (row,) = repeated(command, document)[0]["capacity"]
    cost = document["today"]["figures"]["cost"]
    assert row["rate_per_s"] == cost["rate_per_s"]
    assert row["cost_usd_per_h"] == cost["usd_per_h"]
    assert (document["bound"], document["policy"]) == (None, None)
    entries = document["hardware"]
    assert [entry["engine"].split("x")[0] for entry in entries] == ["llama-3.1-8b@h100", "llama-3.1-8b@h200"]
    for entry in entries:
        assert entry["fleet_usd_per_h"] == pytest.approx(entry["replicas"] * entry["usd_per_h"])
        (fleet,) = json.loads(command(*shlex.split(entry["commands"][-1])[1:], "--json").out)["fleets"]
        assert fleet["num_replicas"] is not None
    assert document["answer"][-1].startswith("Cheapest for ")


def test_windows_too_short_for_a_cost_say_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_problem, "POLICIES", ())
    document = tune(command, *COSTS[:5], "ttft=100", *COSTS[6:])
    assert document["answer"] == [
        "Windows are too short: their requests are within the SLO at any rate. Take more --window-requests."
    ]
    assert not document["flags"]["recommended"]


def test_hardware_takes_the_place_of_what_follows_the_at() -> None:
    assert engine_on("qwen3-32b@h100x2/sglang", "h200") == "qwen3-32b@h200/sglang"
    assert engine_on("llama-3.1-70b@h100x4/fp8", "h200x4") == "llama-3.1-70b@h200x4/fp8"
    assert engine_on("qwen3-32b@h100x2", "qwen3-32b@b200") == "qwen3-32b@b200"
    with pytest.raises(InputError, match="--hardware 'h300': no engine"):
        engine_on("qwen3-32b@h100x2", "h300")
    with pytest.raises(InputError, match="--hardware needs an engine of the table"):
        engine_on("llama2-7b-a100", "h200")


def test_gpus_are_grouped_anew(command: Command) -> None:
    """Two GPUs as one engine, or as two behind a router; the printed commands say which."""
    document = tune(
        command, "--workload", "azure-conv", "--first", 40, "--rate", 20, "--slo", "ttft=0.5,tpot=0.03",
        "--windows", 2, "--random-settings", 2, "--jobs", 1, "--cost", "qwen3-32b@h100x2",
    )  # fmt: skip
    assert document["today"]["flags"]["--tensor-parallel-size"] == 2
    two = {"--tensor-parallel-size": 1}
    assert any(each["flags"] == two and each["values"][0] is not None for each in document["candidates"])
    assert all("router" not in each["flags"] or two.items() <= each["flags"].items() for each in document["candidates"])
    setting = Setting({"--tensor-parallel-size": Choice(1, engine="qwen3-32b@h100", replicas=2)})
    assert serve(SPACES["vllm"], setting, 1) == ["vllm serve MODEL --data-parallel-size 2"]


@pytest.mark.parametrize(
    ("backend", "flags", "expected"),
    [
        ("vllm", {"--watermark": 0.02}, ["vllm serve MODEL --tensor-parallel-size 2 --watermark 0.02"]),
        (
            "vllm",
            {"--no-scheduler-reserve-full-isl": "on"},
            ["vllm serve MODEL --tensor-parallel-size 2 --no-scheduler-reserve-full-isl"],
        ),
        (
            "sglang",
            {"--schedule-conservativeness": 0.3},
            [
                "python -m sglang.launch_server --model-path MODEL --tp-size 2 --schedule-conservativeness 0.3",
            ],
        ),
        (
            "trtllm",
            {"--max_batch_size": 64, "scheduler_config.capacity_scheduler_policy": "MAX_UTILIZATION"},
            [
                "printf '%s\\n' 'enable_chunked_prefill: true' scheduler_config: "
                "'  capacity_scheduler_policy: MAX_UTILIZATION' > tuned.yaml",
                "trtllm-serve MODEL --tp_size 2 --max_batch_size 64 --extra_llm_api_options tuned.yaml",
            ],
        ),
    ],
)
def test_what_to_type(backend: str, flags: dict[str, Any], expected: list[str]) -> None:
    space = ALL[backend]
    chosen = {n: next(c for c in space.flag(n).choices if c.value == value) for n, value in flags.items()}
    assert serve(space, Setting(chosen), 2) == expected
