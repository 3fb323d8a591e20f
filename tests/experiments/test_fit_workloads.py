"""The parameters in the package are those that the script makes of the traces."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[2]


@needs_shared
def test_parameters_and_report_are_up_to_date(tmp_path):
    fit_workloads = pytest.importorskip("experiments.facts.fit_workloads")
    assert SHARED is not None
    for path in (fit_workloads.PARAMETERS, fit_workloads.REPORT):
        (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / fit_workloads.REPORT).write_text((ROOT / fit_workloads.REPORT).read_text())
    assert fit_workloads.main([str(SHARED / "data"), "--out", str(tmp_path)]) == 0
    for path in (fit_workloads.PARAMETERS, fit_workloads.REPORT):
        assert (tmp_path / path).read_text() == (ROOT / path).read_text()


def test_missing_traces(tmp_path, capsys):
    fit_workloads = pytest.importorskip("experiments.facts.fit_workloads")
    assert fit_workloads.main([str(tmp_path)]) == 2
    assert "expected one file that matches" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fit_workloads.main([])
