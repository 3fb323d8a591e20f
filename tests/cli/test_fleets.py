"""`infermax bench --replicas` and `infermax capacity` against docs/command.md."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infermax_gym import evaluation
from tests.cli.conftest import NUM_REQUESTS, Command
from tests.cli.test_bad_input import check
from tests.cli.test_bench import FIGURES


def output_of(command: Command, *arguments: object) -> dict[str, Any]:
    code, out, err = command(*arguments, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def test_bench_runs_each_policy_with_each_router(command: Command, trace: Path) -> None:
    document = output_of(
        command, "bench", "--workload", trace, "--replicas", 3, "--policies", "vllm-v1,sjf-oracle",
        "--routers", "round-robin,sal", "--staleness", 0.2, "--forget-routed", "--kv-tokens", 1000, "--seeds", 2,
    )  # fmt: skip
    assert list(document["policies"]) == [
        "vllm-v1 + round-robin", "vllm-v1 + sal", "sjf-oracle + round-robin", "sjf-oracle + sal"
    ]  # fmt: skip
    expected = {
        "policies": ["vllm-v1", "sjf-oracle"], "routers": ["round-robin", "sal"], "replicas": 3, "staleness_s": 0.2,
        "counts_routed": False, "seeds": 2,
    }  # fmt: skip
    assert document["config"].items() >= expected.items()
    row = document["policies"]["vllm-v1 + round-robin"]
    assert all(name in row for name in FIGURES)
    assert row["num_finished"] == NUM_REQUESTS
    assert row["request_imbalance"] == 1.0
    assert row["busy_imbalance"] >= 1.0
    assert document["policies"]["sjf-oracle + sal"]["information"] == "oracle"


def test_bench_of_fleets_names_all_routers_by_default(command: Command, trace: Path) -> None:
    names = {row["name"] for row in json.loads(command("list", "routers", "--json").out)["routers"]}
    document = output_of(command, "bench", "--workload", trace, "--replicas", 2)
    assert set(document["policies"]) == {f"vllm + {name}" for name in names}


def test_one_replica_is_the_policy(command: Command, trace: Path) -> None:
    arguments = ("bench", "--workload", trace, "--policies", "vllm-v1", "--kv-tokens", 1000)
    alone = output_of(command, *arguments)["policies"]["vllm-v1"]
    fleet = output_of(command, *arguments, "--replicas", 1, "--routers", "sal")["policies"]["vllm-v1 + sal"]
    del alone["wall_s"]
    assert fleet.items() >= alone.items()


def test_tables_are_for_people(command: Command, trace: Path) -> None:
    code, out, err = command("bench", "--workload", trace, "--replicas", 2, "--staleness", 0.1)
    assert (code, err) == (0, "")
    assert "2 replicas, load signals 0.1 s apart, counting what was routed since" in out
    assert "vllm + least-outstanding" in out
    assert max(map(len, out.splitlines())) <= 120


def test_prefill_and_decode_apart(command: Command, trace: Path) -> None:
    arguments = ("bench", "--workload", trace, "--replicas", 2, "--routers", "kv-share", "--slo", "ttft=1.0")
    document = output_of(command, *arguments, "--prefill-replicas", 1, "--kv-gb-per-s", 1)
    expected = {"prefill_replicas": 1, "prefill_router": "queued-tokens", "kv_gb_per_s": 1.0, "replicas": 2}
    assert document["config"].items() >= expected.items()
    (row,) = document["policies"].values()
    assert row["num_finished"] == NUM_REQUESTS
    assert row["prefill_busy_imbalance"] == 1.0
    slower = output_of(command, *arguments, "--prefill-replicas", 1, "--kv-gb-per-s", 0.1)
    (late,) = slower["policies"].values()
    assert late["ttft_s"] == row["ttft_s"]
    assert late["latency_s"]["mean"] > row["latency_s"]["mean"]
    assert "2 replicas that decode, 1 that compute prompts" in command(*arguments, "--prefill-replicas", 1).out


def test_requests_that_move(command: Command, trace: Path, tmp_path: Path) -> None:
    arguments = ("bench", "--workload", trace, "--replicas", 2, "--routers", "round-robin", "--kv-tokens", 400)
    document = output_of(
        command, *arguments, "--migrate", "none,defrag,balanced", "--migrate-period", 0.1, "--out", tmp_path
    )
    assert document["config"].items() >= {"migrate": ["none", "defrag", "balanced"], "migrate_period_s": 0.1}.items()
    rows = document["policies"]
    assert list(rows) == [f"vllm + round-robin{more}" for more in ("", " + defrag", " + balanced")]
    assert "num_migrations" not in rows["vllm + round-robin"]
    assert rows["vllm + round-robin + defrag"]["num_migrations"] > 0
    assert all(row["num_finished"] == NUM_REQUESTS for row in rows.values())
    header, first, second, _ = (tmp_path / "results.csv").read_text().splitlines()
    at = header.split(",").index("num_migrations")
    assert first.split(",")[at] == ""
    assert int(second.split(",")[at]) == rows["vllm + round-robin + defrag"]["num_migrations"]
    shown = command(*arguments, "--migrate", "defrag").out
    assert "2 replicas, requests move every 0.05 s, load signals" in shown
    assert "grated" in shown
    assert "grated" not in command(*arguments).out


def fleet_file(folder: Path, entries: object) -> Path:
    path = folder / "mixed.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_a_fleet_from_a_file(command: Command, trace: Path, tmp_path: Path) -> None:
    priced(tmp_path / "small.json", "small", 1.0)
    entries = [
        {"count": 2, "kv_tokens": 2000, "policy": "sarathi"},
        {"cost": "small.json", "max_num_seqs": 7},
    ]
    path = fleet_file(tmp_path, entries)
    arguments = ("bench", "--workload", trace, "--routers", "round-robin,sal", "--fleet", path)
    document = output_of(command, *arguments, "--kv-tokens", 1000, "--policies", "vllm-v1,sjf-oracle")
    assert list(document["policies"]) == [
        "vllm-v1 + round-robin", "vllm-v1 + sal", "sjf-oracle + round-robin", "sjf-oracle + sal"
    ]  # fmt: skip
    assert document["config"]["replicas"] == 3
    assert document["config"]["policies"] == ["sarathi", "vllm-v1", "sjf-oracle"]
    assert document["config"]["fleet"] == [
        {"count": 2, "cost": "llama2-7b-a100", "kv_tokens": 2000, "policy": "sarathi"},
        {"count": 1, "cost": "small", "kv_tokens": 1000, "policy": None},
    ]
    row = document["policies"]["vllm-v1 + round-robin"]
    assert row["num_finished"] == NUM_REQUESTS
    assert document["policies"]["sjf-oracle + sal"]["information"] == "oracle"
    shown = command(*arguments).out
    assert "2 x llama2-7b-a100, 2,000 KV tokens, sarathi; 1 x small, 100,000 KV tokens, load signals" in shown


def test_a_file_of_equal_replicas_is_their_number(command: Command, trace: Path, tmp_path: Path) -> None:
    path = fleet_file(tmp_path, [{"policy": "sarathi", "kv_tokens": 1500}, {"count": 2, "policy": "sarathi"}])
    arguments = ("bench", "--workload", trace, "--kv-tokens", 1500, "--routers", "sal")
    (mixed,) = output_of(command, *arguments, "--fleet", path)["policies"].items()
    (equal,) = output_of(command, *arguments, "--replicas", 3, "--policies", "sarathi")["policies"].items()
    assert (mixed[0], equal[0]) == ("mixed + sal", "sarathi + sal")
    del mixed[1]["wall_s"], equal[1]["wall_s"]
    assert mixed[1] == equal[1]


@pytest.mark.parametrize(
    ("entries", "hint"),
    [
        ([], "expected a list of entries"),
        ({"count": 2}, "expected a list of entries"),
        ([3], "entry 1: expected an object"),
        ([{}, {"kv_token": 3}], "entry 2: unknown 'kv_token'; expected some of count, policy, cost, kv_tokens"),
        ([{"count": 0}], "entry 1: count must be a whole number of at least 1, got 0"),
        ([{"count": True}], "count must be a whole number of at least 1, got true"),
        ([{"prefix_caching": "yes"}], 'prefix_caching must be true or false, got "yes"'),
        ([{"policy": "vlm-0.13"}], "entry 1: unknown policy 'vlm-0.13'; did you mean 'vllm-0.13'?"),
        ([{"policy": "wait-threshold"}], "entry 1: policy 'wait-threshold' cannot run in a fleet"),
        ([{"cost": "nowhere.json"}], "entry 1: nowhere.json"),
        ([{"policy": "vllm-v1"}], "--policies: every entry of the fleet 'mixed' names its policy"),
    ],
    ids=str,
)
def test_fleet_files_that_are_wrong(command: Command, trace: Path, tmp_path: Path, entries: object, hint: str) -> None:
    path = fleet_file(tmp_path, entries)
    check(command("bench", "--workload", trace, "--fleet", path, "--policies", "vllm-v1"), hint)


def test_fleet_files_that_are_none(command: Command, trace: Path, tmp_path: Path) -> None:
    arguments = ("bench", "--workload", trace, "--fleet")
    check(command(*arguments, tmp_path / "nothing.json"), "No such file")
    (tmp_path / "text.json").write_text("two replicas")
    check(command(*arguments, tmp_path / "text.json"), "not JSON")
    path = fleet_file(tmp_path, [{"count": 2}])
    check(command(*arguments, path, "--replicas", 2), "--replicas and --fleet exclude each other")
    check(command(*arguments, path, "--prefill-replicas", 2), "--prefill-replicas needs --replicas N")
    check(command(*arguments, path, "--bound"), "not a fleet (--fleet)")
    check(command("capacity", "--workload", trace, "--fleet", path, "--for-rate", 2), "--for-rate and --fleet exclude")


CAPACITY = ("capacity", "--workload", "azure-conv", "--requests-per-replica", 60, "--seeds", 2)


def test_capacity(command: Command, tmp_path: Path) -> None:
    document = output_of(
        command, *CAPACITY, "--replicas", "1,2", "--routers", "round-robin,sal", "--slo", "ttft=1.0", "--out", tmp_path
    )
    assert json.loads((tmp_path / "capacity.json").read_text()) == document
    assert document["schema"] == 1
    assert document["config"]["attainment"] == 0.9
    rows = document["capacity"]
    assert [(row["num_replicas"], row["router"]) for row in rows] == [
        (1, "round-robin"), (2, "round-robin"), (2, "sal")
    ]  # fmt: skip
    for row in rows:
        assert len(row["per_seed_per_s"]) == 2
        assert row["rate_per_s"] == pytest.approx(sum(row["per_seed_per_s"]) / 2)
        assert row["rate_per_replica_per_s"] == row["rate_per_s"] / row["num_replicas"]
    assert rows[1]["rate_per_s"] > rows[0]["rate_per_s"]


def test_capacity_in_clients(command: Command) -> None:
    """The most clients that wait for their answers, and more of them with two replicas."""
    arguments = (*CAPACITY, "--clients", "--slo", "ttft=0.5", "--max-num-seqs", 8)
    code, out, err = command(*arguments, "--replicas", "1,2", "--json")
    assert (code, err) == (0, "")
    one, two = json.loads(out)["clients"]
    assert 1 <= one["clients"] < two["clients"]
    assert one["clients"] == sum(one["per_seed"]) / 2
    most = int(one["per_seed"][0])
    closed = ("bench", "--workload", "azure-conv", "--first", 60, "--policies", "vllm", "--slo", "ttft=0.5", "--json")
    for clients, met in ((most, True), (most + 1, False)):
        found = json.loads(command(*closed, "--max-num-seqs", 8, "--concurrency", clients).out)["policies"]["vllm"]
        assert (found["slo_attainment"] >= 0.9) == met
    assert "clients" in command(*arguments).out
    assert "--think-time and --ramp-up are about clients" in command(*CAPACITY, "--think-time", 1).err
    assert "--clients and --for-rate exclude each other" in command(*arguments, "--for-rate", 1).err


def test_capacity_of_a_mixed_fleet(command: Command, tmp_path: Path) -> None:
    path = fleet_file(tmp_path, [{"count": 2}, {"kv_tokens": 5000}])
    arguments = (*CAPACITY, "--routers", "round-robin", "--slo", "ttft=1.0", "--fleet", path)
    stays, moves = output_of(command, *arguments, "--migrate", "none,balanced")["capacity"]
    assert (stays["num_replicas"], stays["router"], moves["router"]) == (3, "round-robin", "round-robin + balanced")
    assert moves["rate_per_s"] >= 0.9 * stays["rate_per_s"] > 0.0
    assert "1 x llama2-7b-a100, 5,000 KV tokens" in command(*arguments).out


def test_the_fewest_replicas_for_a_rate(command: Command, tmp_path: Path) -> None:
    from infermax_gym.cost import COSTS, CostModel

    path = tmp_path / "priced.json"
    cost = COSTS["llama2-7b-a100"]
    path.write_text(
        CostModel(cost.name, cost.terms, num_devices=1, price_usd_per_device_hour=2.0).to_json(), encoding="utf-8"
    )
    document = output_of(command, *CAPACITY, "--for-rate", 20, "--routers", "round-robin,sal", "--cost", path)
    for row in document["fleets"]:
        assert (row["cost"], row["kv_tokens"]) == (cost.name, 100_000)
        assert row["num_replicas"] >= 2
        assert row["cost_usd_per_h"] == 2.0 * row["num_replicas"]
        assert row["attainment"] - row["ci95"] >= 0.9
    assert "num_replicas" in document["config"]


def priced(path: Path, name: str, usd_per_h: float) -> Path:
    from infermax_gym.cost import COSTS

    model = replace(COSTS["llama2-7b-a100"], name=name, price_usd_per_device_hour=usd_per_h)
    path.write_text(model.to_json(), encoding="utf-8")
    return path


def test_the_cheapest_of_several_devices(command: Command, tmp_path: Path) -> None:
    """The same device with little memory at half the price, and with much at the full one."""
    costs = f"{priced(tmp_path / 'small.json', 'small', 1.0)},{priced(tmp_path / 'large.json', 'large', 2.0)}"
    arguments = (*CAPACITY, "--for-rate", 20, "--cost", costs, "--kv-tokens", "14000,100000")
    small, large = output_of(command, *arguments)["fleets"]
    assert [(row["cost"], row["kv_tokens"]) for row in (small, large)] == [("small", 14_000), ("large", 100_000)]
    assert small["num_replicas"] > large["num_replicas"]
    assert small["cost_usd_per_h"] == small["num_replicas"]
    assert large["cost_usd_per_h"] == 2 * large["num_replicas"]
    shown = command(*arguments).out
    assert "small, 14,000 KV tokens; large, 100,000 KV tokens" in shown
    first = "small" if small["cost_usd_per_h"] < large["cost_usd_per_h"] else "large"
    rows = [line.split()[0] for line in shown.splitlines() if "least-outstanding" in line]
    assert rows[0] == first


@pytest.mark.parametrize("more", [(), ("--for-rate", 6)])
def test_capacity_is_for_people(command: Command, more: tuple[object, ...]) -> None:
    code, out, err = command(*CAPACITY, *more)
    assert (code, err) == (0, "")
    assert "TTFT <= 2 s, TPOT <= 0.1 s, for 90 % of the requests" in out
    assert "least-outstanding" in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["bench", "--routers", "sal"], "need --replicas N"),
        (["bench", "--staleness", "1"], "need --replicas N"),
        (["bench", "--replicas", "0"], "--replicas"),
        (["bench", "--replicas", "2", "--routers", "sall"], "did you mean 'sal'?"),
        (["bench", "--replicas", "2", "--routers", ","], "names no router"),
        (["bench", "--replicas", "2", "--staleness", "inf"], "--staleness must be a time"),
        (["bench", "--replicas", "2", "--agent", "x"], "--agent does not go with --replicas"),
        (["bench", "--replicas", "2", "--policies", "wait-threshold"], "cannot run in a fleet"),
        (["bench", "--prefill-replicas", "2"], "need --replicas N"),
        (["bench", "--replicas", "2", "--prefill-replicas", "1", "--prefill-router", "all"], "expected one router"),
        (["bench", "--replicas", "2", "--prefill-replicas", "1", "--prefill-router", "sall"], "did you mean 'sal'?"),
        (["bench", "--replicas", "2", "--prefill-replicas", "1", "--kv-gb-per-s", "0"], "must be positive"),
        (["bench", "--replicas", "2", "--prefill-replicas", "1", "--policies", "vllm-v0-swap"], "must recompute"),
        (["bench", "--migrate", "defrag"], "need --replicas N or --fleet PATH"),
        (["bench", "--replicas", "2", "--migrate", "defrg"], "expected none, defrag, balanced"),
        (["bench", "--replicas", "2", "--migrate", "defrag", "--migrate-period", "0"], "--migrate-period must be"),
        (["capacity", "--replicas", "two"], "expected whole numbers of at least 1"),
        (["capacity", "--replicas", "2,0"], "expected whole numbers of at least 1"),
        (["capacity", "--kv-tokens", "many"], "expected one whole number"),
        (["capacity", "--kv-tokens", "1000,2000"], "one for each of 1 cost models"),
        (["capacity", "--cost", "llama2-7b-a100,lama2-7b-a10"], "did you mean"),
        (["capacity", "--attainment", "90"], "--attainment must be a share"),
        (["capacity", "--for-rate", "-3"], "--for-rate must be a positive number"),
        (["capacity", "--slo", "ttft=soon"], "expected ttft=S"),
        (["capacity", "--policies", "vlm-0.13"], "did you mean 'vllm-0.13'?"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_input(command: Command, trace: Path, arguments: list[str], hint: str) -> None:
    check(command(*arguments, "--workload", trace), hint)


def test_requests_that_arrive_at_once_have_no_rate(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n" + "0.0,10,5\n" * 3)
    check(command("capacity", "--workload", path), "arrive at different times")


def test_an_interrupt_keeps_what_has_finished(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = evaluation.find_capacity, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(evaluation, "find_capacity", interrupted)
    code, out, err = command(*CAPACITY, "--replicas", "1,2", "--out", tmp_path, "--json")
    assert (code, err) == (130, "infermax: interrupted: 1 of 2 fleets had finished\n")
    document = json.loads(out)
    assert document["interrupted"] is True
    assert [row["num_replicas"] for row in document["capacity"]] == [1]
    assert json.loads((tmp_path / "capacity.json").read_text()) == document
