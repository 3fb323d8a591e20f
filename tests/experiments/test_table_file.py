"""Tables of the studies are printed, and written only where `--out` says."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from experiments.studies.table_file import TableFile, add_out


def test_a_table_goes_to_the_screen_and_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_out(parser)
    path = tmp_path / "new" / "table.md"
    table = TableFile(parser.parse_args(["--out", str(path)]).out)
    table.add("| a |")
    assert path.read_text() == "| a |\n"
    table.add("| b |")
    assert path.read_text() == capsys.readouterr().out == "| a |\n| b |\n"


def test_without_a_file_it_is_only_printed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_out(parser)
    TableFile(parser.parse_args([]).out).add("| a |")
    assert capsys.readouterr().out == "| a |\n"
