"""Results are whole or not there, and nothing from outside becomes a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.sweep import Outcome, Shared, Store, StoreError, Task, run_missing
from infermax_gym.sweep.document import read_document
from infermax_gym.sweep.tasks import Work, key_of
from tests.sweep import work

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra sweep)")

KEYS = ["ab" * 16, "ac" * 16]


def outcome(key: str, value: dict[str, Any]) -> Outcome:
    return Outcome(Task(key, None, Shared("", None)), value, None, 1, 0.5)


def test_one_data_set_for_those_who_read_it(tmp_path: Path) -> None:
    with Store(tmp_path).opened() as store:
        store.add(outcome(KEYS[0], {"num_requests": 3, "ttft_s_mean": 0.5}), {"policy": "a/../b", "rate": None})
        store.add(outcome(KEYS[1], {"num_requests": 3, "ttft_s_mean": None}), {"policy": "vllm", "rate": 2.0})
        assert store.keys() == set(KEYS) and store.times() == dict.fromkeys(KEYS, 0.5)
    table = parquet.read_table(tmp_path / "results").sort_by("scenario").to_pydict()
    assert table["policy"] == ["a/../b", "vllm"] and table["ttft_s_mean"] == [0.5, None]
    assert table["rate"] == [None, 2.0] and table["num_requests"] == [3, 3]
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(tmp_path / "results")) == 2
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    found = duckdb.sql(f"select count(*), max(ttft_s_mean) from '{tmp_path}/results/*/*.parquet'").fetchall()
    assert found == [(2, 0.5)]


def test_what_is_not_whole_is_not_there(tmp_path: Path) -> None:
    with Store(tmp_path).opened() as store:
        for key in KEYS:
            store.add(outcome(key, {"num_requests": 3}), {})
        path = tmp_path / "results" / "part=pab" / f"{KEYS[0]}.parquet"
        path.write_bytes(path.read_bytes()[:-1])
        (path.parent / ".x.part").write_bytes(b"half")
        (path.parent / f"{'ad' * 16}.parquet").symlink_to(tmp_path / "results" / "part=pac" / f"{KEYS[1]}.parquet")
        (path.parent / "notes.parquet").write_bytes(b"")
        assert store.keys() == {KEYS[1]}
        with pytest.raises(ValueError, match="no key"):
            store.add(outcome("../" * 10 + "xy", {}), {})
    (tmp_path / "times.jsonl").write_text('{"scen')
    with Store(tmp_path).opened() as store:
        assert store.times() == {} and not list(tmp_path.rglob(".*.part"))


def test_one_run_in_a_folder(tmp_path: Path) -> None:
    with (
        Store(tmp_path).opened(),
        pytest.raises(StoreError, match="another run is at work"),
        Store(tmp_path).opened(),
    ):
        pass
    with Store(tmp_path).opened():
        assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"), Store(tmp_path / "x").opened():
        pass


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    ran: list[Any] = []

    def execute(work: Work, missing: Any) -> Any:
        for task in missing:
            ran.append(task.argument)
            error = "no" if task.argument == "fails" else None
            yield Outcome(task, None if error else {"num_requests": 1}, error, 1, 0.0)

    jobs = [Task(key, name, Shared("", None)) for key, name in zip(KEYS, ("works", "fails"), strict=True)]
    for expected in (["works", "fails"], ["fails"]):
        ran.clear()
        with Store(tmp_path).opened() as store:
            report = run_missing(
                store, jobs, Work(work.load, work.run), execute, lambda task: {"policy": task.argument}
            )
        assert ran == expected and [one["error"] for one in report.failures] == ["no"]
        assert (tmp_path / "failures.json").exists()


def test_keys_tell_scenarios_apart() -> None:
    assert key_of({"seed": 0}) == key_of({"seed": 0}) != key_of({"seed": 1})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("!!python/object/apply:os.mkdir [owned]", "could not determine a constructor"),
        ("[1, 2]", "expected entries by name"),
        ("a: [", "cannot be read"),
        ("[" * 3000, "cannot be read"),
        ("a: " + "x" * (2 << 20), "too large"),
    ],
    ids=["alias", "code", "list", "damaged", "deep", "large"],
)
def test_configurations_that_are_refused(tmp_path: Path, text: str, hint: str) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(StoreError, match=hint) as caught:
        read_document(path)
    assert "\n" not in str(caught.value) and not Path("owned").exists()
