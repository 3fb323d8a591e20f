from __future__ import annotations

import pytest

from infermax_gym.workload import PRESETS, WorkloadError, load_workload, make_workload, read_workload
from tests.workload.same import assert_same_requests


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens\n" + "".join(f"{i},{i + 1},5\n" for i in range(9)))
    return path


def test_presets_by_name():
    assert_same_requests(load_workload("azure-conv", seed=3), make_workload("azure-conv", 1_000, seed=3))
    assert len(load_workload("azure-conv", num_requests=20)) == 20
    assert len(load_workload("azure-conv", num_requests=20, first=7)) == 7


def test_trace_slices_of_presets():
    window = load_workload("mixed", skip=30, first=40, seed=1)
    assert_same_requests(window, make_workload("mixed", 70, seed=1).trace_slice(30, 40))
    assert window.metadata["skip"] == 30
    assert load_workload("mixed", skip=30, first=40, rate=9.0).mean_rate_per_s == pytest.approx(9.0)


def test_paths(trace):
    for path in (trace, str(trace)):
        workload = load_workload(path, skip=2, first=3, time_scale=2.0)
        assert_same_requests(workload, read_workload(trace, skip=2, first=3, time_scale=2.0), without=())
    assert len(load_workload(trace, num_requests=2)) == 9


def test_a_file_without_suffix(trace, monkeypatch):
    trace.rename(trace.parent / "requests")
    monkeypatch.chdir(trace.parent)
    assert len(load_workload("requests")) == 9


def test_unknown_names():
    with pytest.raises(WorkloadError) as error:
        load_workload("azure-conversation")
    assert str(error.value) == (
        "no workload is called 'azure-conversation'; did you mean azure-conv? "
        f"Presets are {', '.join(PRESETS)}; anything else must be a trace file"
    )
    with pytest.raises(WorkloadError, match=r"no workload is called 'zzz'; Presets are"):
        load_workload("zzz")
    with pytest.raises(WorkloadError, match=r"azure-conv\.csv: no such file"):
        load_workload("azure-conv.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_requests": 0}, "num_requests must be at least 1, got 0"),
        ({"first": 0}, "first must be at least 1, got 0"),
        ({"skip": -1}, "skip must not be negative"),
        ({"seed": -1}, "seed must not be negative"),
        ({"rate": 1.0, "time_scale": 2.0}, "not both"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(WorkloadError, match=message):
        load_workload("mixed", **options)
