"""`infermax report`."""

from __future__ import annotations

from pathlib import Path

import pytest

from infermax_gym.cli.app import main


def test_shows_what_bench_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--workload", "azure-conv", "--first", "30", "--policies", "sarathi,hrrn"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "policies": {"a": {}, "b": {}}}'])
def test_a_bad_folder_gets_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "summary.json").write_text(text)
    assert main(["report", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("infermax: error:") and len(captured.err.splitlines()) == 1


def test_a_missing_folder_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "cannot be read" in capsys.readouterr().err
