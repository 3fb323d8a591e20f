"""A short round of `tests.fuzz`, of readers and of command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from infermax_gym.cli import main
from tests.fuzz import run_round

pytest.importorskip("yaml", reason="pyyaml is not installed (extra sweep)")


def test_hostile_files(tmp_path: Path) -> None:
    count, faults = run_round(600, 1, tmp_path)
    assert not faults, faults[0]
    assert sum(count.values()) == 600 and sum(n for name, n in count.items() if "refused" in name) > 200


@pytest.mark.parametrize("name", ["a" * 5_000, "a" * 300 + ".json", "../" * 2_000 + "x.csv"])
def test_names_too_long_for_a_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a name is no file; it used to end in a traceback."""
    instance = tmp_path / "instance.json"
    instance.write_text('{"requests": [], "kv_tokens": 20, "cost": "' + name + '"}')
    for arguments in (
        ["bench", "--workload", name],
        ["bench", "--workload", "azure-conv", "--cost", name],
        ["bench", "--workload", "azure-conv", "--agent", name],
        ["optimal", str(instance), "--objective", "makespan"],
        ["replay", name],
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
