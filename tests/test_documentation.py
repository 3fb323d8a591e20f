"""What the pages tell people to type works, their links lead somewhere, and their sentences are short.

Each page runs from top to bottom in a folder of its own: Python blocks in one namespace, `infermax` commands in this
process on small workloads (`small`). Of other commands it is checked that what they name is there: `make` targets,
extras of `pip install`, scripts and their options. `<!-- not run: why -->` in front of a block leaves it out.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.cli import main
from tests.pages import Block, blocks_of, commands_of, name_of, pages, sentence_lengths
from tests.test_architecture import ROOT

LONGEST_MEAN = 18.0
"""Words a sentence, on average over a page."""

MOST = {"--first": 60, "--seeds": 2, "--optimum": 0.2, "--requests-per-replica": 40, "--time-limit": 10}
MOST |= {"--window-requests": 20, "--windows": 2}
ADDED = {
    "bench": {"--first": "60"},
    "simulate": {"--first": "60"},
    "bound": {"--first": "60"},
    "capacity": {"--requests-per-replica": "40"},
    "evaluate": {"--tasks": "toy"},
    "tune": {"--budget": "60", "--window-requests": "20", "--windows": "2", "--random-settings": "0"},
}
SEARCHED = set[frozenset[str]]()
SCRIPTS = re.compile(r"(?:python3?|\S+/python3?) (?:-m )?(experiments|benchmarks|examples|tests|train)\b")


def small(words: list[str]) -> list[str]:
    """The words of an `infermax` command, with numbers small enough for a test."""
    words = list(words)
    for place, word in enumerate(words[:-1]):
        if word in MOST:
            words[place + 1] = str(min(float(words[place + 1]), MOST[word])).removesuffix(".0")
        elif word == "--budget":
            words[place + 1] = "60"
    if "--workload" in words or words[0] == "evaluate":
        for option, value in ADDED.get(words[0], {}).items():
            words += [option, value] if option not in words else []
    return words


def test_small_keeps_what_is_small() -> None:
    assert small(["bench", "--workload", "x", "--seeds", "5"]) == [
        "bench",
        "--workload",
        "x",
        "--seeds",
        "2",
        "--first",
        "60",
    ]
    assert small(["list", "costs"]) == ["list", "costs"]
    assert small(["bound", "--workload", "x", "--first", "7"])[-1] == "7"


def numbers_of(record: dict[str, str]) -> dict[str, float]:
    return {
        name: float(text) if name.endswith("_s") else int(text) for name, text in record.items() if name != "status"
    }


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that commands of the pages take as given."""
    folder = tmp_path_factory.mktemp("stock")
    lines = "".join(f"{0.2 * k:.1f},{100 + 37 * k % 400},{10 + k % 50}\n" for k in range(1_600))
    (folder / "trace.csv").write_text("arrival_s,num_prompt_tokens,num_output_tokens\n" + lines)
    measured = ROOT / "experiments" / "measurements" / "h100_llama-3.2-1b"
    shutil.copy(f"{measured}.csv", folder / "measured.csv")
    shutil.copy(f"{measured}_cost.json", folder / "mine.json")
    shutil.copy(f"{measured}_cost.json", folder / "cost.json")
    shape = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    shape |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256}
    (folder / "config.json").write_text(json.dumps(shape | {"tie_word_embeddings": True}))
    served = ["simulate", "--workload", "azure-conv", "--first", "30", "--rate", "4", "--policy", "vllm"]
    assert main([*served, "--requests-out", str(folder / "requests.csv")]) == 0
    with (folder / "requests.csv").open() as served_requests:
        records = list(csv.DictReader(served_requests))
    (folder / "runs" / "latest").mkdir(parents=True)
    shutil.copy(ROOT / "agents" / "zoo" / "conv-evolved.safetensors", folder / "runs" / "latest" / "policy.safetensors")
    shutil.copy(ROOT / "agents" / "zoo" / "conv-evolved.safetensors", folder / "my-agent.safetensors")
    (folder / "requests.jsonl").write_text("".join(json.dumps(numbers_of(record)) + "\n" for record in records))
    (folder / "log.csv.gz").write_bytes(gzip.compress((folder / "requests.csv").read_bytes()))
    request = {"arrival_s": 0.0, "num_prompt_tokens": 2, "num_output_tokens": 4}
    engine = {"kv_tokens": 7, "max_num_batched_tokens": 512, "max_num_seqs": 256, "block_size": 1}
    (folder / "instance.json").write_text(json.dumps({"requests": [request] * 2, **engine, "cost": "llama2-7b-a100"}))
    return folder


@pytest.fixture
def folder(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with these files, and the repository's own beside them."""
    here = tmp_path / "page"
    shutil.copytree(stock, here)
    for name in ("experiments", "examples", "benchmarks", "docs", "agents"):
        (here / name).symlink_to(ROOT / name)
    monkeypatch.chdir(here)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.syspath_prepend(str(here))
    known = set(sys.modules)
    yield here
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(here)):
            del sys.modules[name]


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_page(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(path.read_text(encoding="utf-8")):
        if block.reason:
            assert len(block.reason.split()) >= 2, f"{name_of(path)}:{block.line}: say why it is not run"
            continue
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        try:
            run(block, namespace)
        except (Exception, SystemExit) as error:
            printed = capsys.readouterr()
            pytest.fail(f"{name_of(path)}:{block.line}: {error!r}\n{printed.err[-2000:]}", pytrace=False)


def run(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block, or check what it names."""
    if block.language == "python":
        exec(compile(block.text, f"line {block.line}", "exec"), namespace)
    elif block.language == "console":
        for command in commands_of(block):
            run_command(command)


def run_command(command: str) -> None:
    if SCRIPTS.match(command):
        check_script(command.split("#")[0].split())
        return
    words = shlex.split(command, comments=True)
    if words[0] == "infermax":
        chosen = small(words[1:])
        # A search takes seconds, and several pages show the same one.
        if chosen[0] == "tune" and frozenset(chosen) in SEARCHED:
            return
        assert main(chosen) == 0, command
        SEARCHED.add(frozenset(chosen))
    elif words[0] == "make":
        targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in " ".join(targets).split(), f"{command}: no such target"
    elif "pip" in words[0] and words[1] == "install":
        extras = {name for extra in re.findall(r"\[([\w,]+)\]", command) for name in extra.split(",")}
        text = (ROOT / "pyproject.toml").read_text()
        assert all(re.search(rf"^{extra} = \[", text, re.MULTILINE) for extra in extras), f"{command}: no such extra"
    else:
        raise AssertionError(f"{command}: nothing here runs it; put <!-- not run: why --> in front of the block")


def check_script(words: list[str]) -> None:
    """The script is there, and knows the options."""
    name = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
    script = ROOT / name
    assert script.is_file(), f"{name}: no such script"
    text = script.read_text(encoding="utf-8")
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in text, f"{name}: no option {option}"


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{name_of(path)}: {target}"


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_sentences_are_short(path: Path) -> None:
    lengths = sentence_lengths(path.read_text(encoding="utf-8"))
    mean = sum(lengths) / max(len(lengths), 1)
    assert mean <= LONGEST_MEAN, f"{mean:.1f} words a sentence"


def test_the_table_is_what_the_demo_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = re.findall(r"^DEMO\w* := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["bench", *shlex.split(options[0]), "--policies", options[1]]) == 0
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    (shown,) = re.findall(r"```text\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown == printed, "run `COLUMNS=100 make demo` and put its table into README.md"


def test_blocks_are_found_with_their_reasons() -> None:
    page = "Put this into `a.py`:\n\n```python\nx = 1\n```\n\n"
    page += "<!-- not run: needs a GPU -->\n```\ninfermax list \\\n  costs\n```\n"
    code, command = blocks_of(page)
    assert (code.language, code.text, code.file, code.reason) == ("python", "x = 1\n", "a.py", "")
    assert (command.language, command.reason, commands_of(command)) == (
        "console",
        "needs a GPU",
        ["infermax list    costs"],
    )


def test_sentences_are_counted() -> None:
    text = "# A title\n\nOne two three. Four `five six`, seven.\n\n- An item\n  of it.\n\n"
    text += "| a | table |\n\n```\ncode. Code.\n```\n"
    assert sentence_lengths(text) == [3, 3, 4]


def test_what_learning_gains_in_the_readme_is_what_the_results_say() -> None:
    sources = [ROOT / "docs" / "results.md", *(ROOT / "docs" / "board").glob("*.md")]
    results = "".join(path.read_text(encoding="utf-8") for path in sources)
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What learning gains")
    figures = re.findall(r"\d\.\d+ \[\d\.\d+, \d\.\d+\]", section.partition("\n## ")[0])
    assert len(figures) >= 8
    assert not [figure for figure in figures if figure not in results], "the results have other figures"
