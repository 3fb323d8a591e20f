"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from infermax_gym.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for line in README.splitlines() if line.startswith("infermax ")]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trace.csv").write_text("arrival_s,num_prompt_tokens,num_output_tokens\n0.0,100,10\n0.5,200,20\n")
    assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_table_is_what_the_demo_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = re.findall(r"^DEMO\w* := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["bench", *shlex.split(options[0]), "--policies", options[1]]) == 0
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    (shown,) = re.findall(r"```text\n(.*?)\n```", README, re.DOTALL)
    assert shown == printed, "run `COLUMNS=100 make demo` and put its table into README.md"


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 3
    assert SNIPPETS


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
