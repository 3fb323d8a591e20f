"""`infermax bench` against its contract."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from numba.core import event

from infermax_gym import evaluation
from infermax_gym.baselines.catalogue import QUICK
from tests.cli.conftest import NUM_REQUESTS, Command

SPREAD = ["mean", "p50", "p90", "p99", "max"]
FIGURES = {
    "num_requests": int,
    "num_finished": int,
    "num_rejected": int,
    "makespan_s": float,
    "busy_s": float,
    "num_iterations": int,
    "num_preemptions": int,
    "num_recomputed_tokens": int,
    "ttft_s": dict,
    "tpot_s": dict,
    "itl_s": dict,
    "latency_s": dict,
    "throughput_tokens_per_s": float,
    "throughput_requests_per_s": float,
    "kv_utilization": float,
    "wall_s": float,
}
NULLABLE = ("goodput_per_s", "slo_attainment", "gpu_cost_usd", "prefix_hit_rate")


def without_wall(document: dict[str, Any]) -> dict[str, Any]:
    for row in document["policies"].values():
        del row["wall_s"]
        row.get("ci95", {}).pop("wall_s", None)
    return document


def bench(command: Command, *arguments: object) -> dict[str, Any]:
    code, out, err = command("bench", *arguments, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def test_the_object_has_the_agreed_shape(command: Command, trace: Path) -> None:
    document = bench(command, "--workload", trace, "--policies", "vllm-v1,sjf-oracle", "--kv-tokens", 1000)
    assert document["schema"] == 1
    assert list(document["policies"]) == ["vllm-v1", "sjf-oracle"]
    assert document["policies"]["vllm-v1"]["information"] == "none"
    assert document["policies"]["sjf-oracle"]["information"] == "oracle"
    for row in document["policies"].values():
        for name, kind in FIGURES.items():
            assert isinstance(row[name], kind), name
            if kind is dict:
                assert list(row[name]) == SPREAD
        assert all(row[name] is None for name in NULLABLE)
        assert row["num_requests"] == row["num_finished"] == NUM_REQUESTS
        assert "ci95" not in row


def test_every_option_is_echoed(command: Command, trace: Path) -> None:
    config = bench(
        command, "--workload", trace, "--policies", "vllm-v1", "--skip", 2, "--first", 20, "--time-scale", 0.5,
        "--cost", "llama3-70b-a100x4", "--kv-tokens", 4000, "--block-size", 8, "--max-num-batched-tokens", 256,
        "--max-num-seqs", 10, "--slo", "ttft=2.0,tpot=0.1",
    )["config"]  # fmt: skip
    expected = {
        "workload": str(trace), "skip": 2, "first": 20, "time_scale": 0.5, "rate": None, "num_requests": 20,
        "cost": "llama3-70b-a100x4", "kv_tokens": 4000, "block_size": 8, "max_num_batched_tokens": 256,
        "max_num_seqs": 10, "slo": {"ttft": 2.0, "tpot": 0.1}, "policies": ["vllm-v1"], "agents": [], "seeds": 1,
    }  # fmt: skip
    assert config.items() >= expected.items()


def test_slo_gives_goodput(command: Command, trace: Path) -> None:
    row = bench(command, "--workload", trace, "--policies", "vllm-v1", "--slo", "latency=1e9")["policies"]["vllm-v1"]
    assert row["slo_attainment"] == 1.0
    assert row["goodput_per_s"] == pytest.approx(row["throughput_requests_per_s"])


def test_schedulers_know_the_slo(command: Command, trace: Path) -> None:
    """One that sheds who must miss its deadline plays differently with a limit; `simulate` and `bench` agree."""
    busy = ("--workload", "azure-code", "--first", 150, "--time-scale", 0.4, "--agent", "goodput", "--json")
    tight, loose = (
        json.loads(command("bench", *busy, "--policies", "vllm-v1", "--slo", f"ttft={limit}").out)["policies"]
        for limit in (0.5, 500)
    )
    alone = json.loads(command("simulate", *busy, "--slo", "ttft=0.5").out)["policies"]["goodput"]
    assert tight["vllm-v1"]["latency_s"] == loose["vllm-v1"]["latency_s"]
    assert tight["goodput"]["latency_s"] != loose["goodput"]["latency_s"]
    assert tight["goodput"]["latency_s"] == alone["latency_s"]


def test_every_policy_runs(command: Command, trace: Path) -> None:
    listed = {row["name"] for row in json.loads(command("list", "policies", "--json").out)["policies"]}
    policies = bench(command, "--workload", trace, "--kv-tokens", 1000)["policies"]
    assert set(policies) == set(QUICK) < listed  # the others take long, and are run when they are named
    assert {row["num_finished"] for row in policies.values()} == {NUM_REQUESTS}


def test_two_runs_agree(command: Command, trace: Path) -> None:
    arguments = ("--workload", trace, "--policies", "all", "--kv-tokens", 1000, "--seeds", 2)
    assert without_wall(bench(command, *arguments)) == without_wall(bench(command, *arguments))


def test_seeds_give_means_and_intervals(command: Command) -> None:
    arguments = ("--workload", "azure-conv", "--first", 40, "--policies", "vllm-v1")
    one = bench(command, *arguments)["policies"]["vllm-v1"]
    three = bench(command, *arguments, "--seeds", 3)["policies"]["vllm-v1"]
    spec = evaluation.WorkloadSpec("azure-conv", first=40)
    assert set(three) - set(one) == {"ci95", "vs_best"}
    assert set(three["ci95"]) == set(one) - {"information"}
    assert list(three["ci95"]["ttft_s"]) == SPREAD
    differs = any((spec(0).num_prompt_tokens != spec(1).num_prompt_tokens).tolist())
    assert (three["ci95"]["latency_s"]["mean"] > 0.0) == differs


def test_files_hold_what_is_printed(command: Command, trace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    arguments = ("--workload", trace, "--policies", "vllm-v1,vllm-v0", "--seeds", 2, "--out", folder)
    document = bench(command, *arguments)
    assert json.loads((folder / "summary.json").read_text()) == document
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["policy"], row["seed"]) for row in rows] == [
        ("vllm-v1", "0"), ("vllm-v1", "1"), ("vllm-v0", "0"), ("vllm-v0", "1")
    ]  # fmt: skip
    assert float(rows[0]["makespan_s"]) == document["policies"]["vllm-v1"]["makespan_s"]
    assert sorted(path.name for path in folder.iterdir()) == ["details.json", "results.csv", "summary.json"]


def test_the_table_is_for_people(command: Command, trace: Path) -> None:
    code, out, err = command("bench", "--workload", trace, "--policies", "vllm-v1,fastertransformer")
    assert (code, err) == (0, "")
    assert "vllm-v1" in out
    assert "* best of the column" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_an_interrupt_keeps_what_has_finished(
    command: Command, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    real, calls = evaluation.contenders.simulate, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if len(arguments[0]) == NUM_REQUESTS:  # and not a run that only warms up
            if len(calls) == finished:
                raise KeyboardInterrupt
            calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(evaluation.contenders, "simulate", interrupted)
    policies = "vllm-v1,vllm-v0,sarathi"
    code, out, err = command(
        "bench", "--workload", trace, "--policies", policies, "--seeds", 2, "--out", tmp_path, "--json"
    )
    whole = finished // 2
    assert code == 130
    assert err == f"infermax: interrupted: {whole} of 3 policies had finished\n"
    document = json.loads(out)
    assert document["interrupted"] is True
    assert list(document["policies"]) == policies.split(",")[:whole]
    assert json.loads((tmp_path / "summary.json").read_text()) == document
    assert len((tmp_path / "results.csv").read_text().splitlines()) == (finished + 1 if finished else 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "--policies", "vllm-v1"),
        ("bench", "--replicas", 2, "--routers", "sal"),
        ("simulate", "--policy", "vllm-v1"),
        ("capacity", "--requests-per-replica", 10, "--slo", "ttft=100"),
    ],
)
def test_compiling_is_said_on_standard_error(
    command: Command, trace: Path, arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiling(*arguments: object, **options: object) -> None:
        with event.trigger_event("numba:compile"):
            pass

    monkeypatch.setattr(evaluation.warming, "serve", compiling)
    code, out, err = command(*arguments, "--workload", trace, "--json")
    assert code == 0
    assert json.loads(out)["schema"] == 1
    assert err.count("\n") == 1
    assert err.startswith("infermax: compiling the simulator for this machine, once")


def test_an_interrupt_elsewhere_says_so(command: Command, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infermax_gym.evaluation.scenario.load_workload", interrupted)
    assert command("bench", "--workload", trace) == (130, "", "infermax: interrupted\n")


def test_prefix_caching(command: Command) -> None:
    options = ("--workload", "conversations", "--first", 200, "--policies", "vllm-v1", "--kv-tokens", 60_000)
    plain, cached = bench(command, *options), bench(command, *options, "--prefix-caching")
    assert (plain["config"]["prefix_caching"], cached["config"]["prefix_caching"]) == (False, True)
    before, after = plain["policies"]["vllm-v1"], cached["policies"]["vllm-v1"]
    assert before["prefix_hit_rate"] is None
    assert 0.3 < after["prefix_hit_rate"] < 1.0
    assert after["ttft_s"]["mean"] < before["ttft_s"]["mean"]
    code, out, _ = command("bench", *options, "--prefix-caching")
    assert code == 0 and "blocks of 16, prefix caching" in out and "hits %" in out


def test_tenants_side_by_side(command: Command) -> None:
    options = ("--workload", "tenants", "--first", 60, "--policies", "sarathi,vtc-sarathi", "--by", "tenant")
    document = bench(command, *options)
    assert document["config"]["by"] == "tenant"
    for row in document["policies"].values():
        assert list(row["groups"]) == ["flood", "steady", "thinker"]
        assert sum(group["num_requests"] for group in row["groups"].values()) == 60
        assert set(row["fairness"]) == {"jain_index", "max_service_gap_tokens", "longest_wait_s"}
    code, out, _ = command("bench", *options)
    assert code == 0 and "thinker" in out and "Evenness" in out


def test_distances_to_the_bound_and_the_searched_optimum(command: Command) -> None:
    arguments = ["bench", "--workload", "azure-code", "--first", 4, "--rate", 50, "--kv-tokens", 9000]
    done = command(*arguments, "--policies", "sarathi,vllm-v1,sarathi-2048,orca", "--optimum", 0.5, "--json")
    assert done.code == 0
    document = json.loads(done.out)
    rows = document["policies"]
    searched = [name for name in rows if name.startswith(("optimal-", "best-known-"))]
    assert len(searched) == 2 and all(rows[name]["optimum"]["gap"] >= 0.0 for name in searched)
    for name in ("sarathi", "vllm-v1", *searched):
        assert all(distance >= 0.0 for distance in rows[name]["over_bound"].values())
    # A token budget of its own, or one that whole prompts fit, is another engine.
    assert "over_bound" not in rows["sarathi-2048"] and "over_bound" not in rows["orca"]
    best = next(name for name in searched if name.endswith("latency"))
    assert rows[best]["latency_s"]["mean"] <= min(rows[name]["latency_s"]["mean"] for name in ("sarathi", "vllm-v1"))
    assert document["bounds"]["latency_s"] <= rows[best]["latency_s"]["mean"]
    refused = command(*arguments, "--policies", "sarathi", "--bound", "--prefix-caching")
    assert refused.code == 2 and "without shared prefixes" in refused.err


def test_asynchronous_scheduling(command: Command, trace: Path) -> None:
    arguments = ("--workload", trace, "--kv-tokens", 1000)
    now, ahead = (bench(command, *arguments, "--policies", "vllm", *more) for more in ((), ("--async-scheduling",)))
    assert (now["config"]["async_scheduling"], ahead["config"]["async_scheduling"]) == (False, True)
    assert ahead["policies"]["vllm"]["ttft_s"]["mean"] > now["policies"]["vllm"]["ttft_s"]["mean"]
    _, out, _ = command("bench", *arguments, "--policies", "vllm", "--async-scheduling")
    assert "decided one iteration ahead" in out
    for others in (("--policies", "vllm,rollout"), ("--policies", "vllm", "--replicas", 2)):
        code, _, err = command("bench", *arguments, *others, "--async-scheduling")
        assert code == 2
        assert "--async-scheduling is modelled for policies of the table on one engine" in err
        assert len(err.strip().splitlines()) == 1


def test_former_names_are_understood_and_kept(command: Command, trace: Path) -> None:
    rows = bench(command, "--workload", trace, "--policies", "vllm-v1,vllm-0.13", "--kv-tokens", 1000)["policies"]
    assert list(rows) == ["vllm-v1", "vllm-0.13"]
    assert rows["vllm-v1"]["makespan_s"] == rows["vllm-0.13"]["makespan_s"]
