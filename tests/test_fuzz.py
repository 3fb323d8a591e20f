"""A short round of `tests.fuzz`, of readers and of command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from infermax_gym.cli import main
from tests.fuzz import attempt, run_round, targets

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


_REQUEST = (
    b'{"request": 0, "arrival_s": %s, "num_prompt_tokens": %s, "num_output_tokens": 3, "first_scheduled_s": 0.1, '
    b'"first_token_s": 0.2, "finish_s": 0.4, "num_preemptions": 0, "priority": 0, "status": "finished"}\n'
)


def test_every_seed_is_accepted(tmp_path: Path) -> None:
    """Mutations of a file that is refused reach nothing behind the first check."""
    for target in targets().values():
        for seed in target.seeds:
            path = tmp_path / f"input{target.suffix}"
            path.write_bytes(seed)
            assert attempt(lambda t=target, p=path: t.read(p), target.refusals) == "accepted"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("report", b'{"schema": ' + b"[" * 3_000),
        ("report", b'{"schema": ' + b"9" * 5_000 + b"}"),
        ("trace", b'[{"timestamp": 0, "input_length": ' + b"9" * 5_000 + b"}]"),
        ("step log", b'{"request": 0}\n'),
        ("step log", b'{"step": 1, "start_s": 0.1, "end_s": 0.2, "seconds": 0.1, "batch": [[1]]}\n'),
        ("step log", b'{"step": 1, "start_s": 0.1, "end_s": 0.2, "seconds": 0.1, "batch": [[1e999, 1, 1]]}\n'),
        ("step log", _REQUEST % (b"null", b"5")),
        ("step log", _REQUEST % (b"0.0", b"9" * 30)),
        ("step log", _REQUEST % (b'"x"', b"5")),
        ("measured", b'",prefill_context_tokens,decode_context_tokens,seconds\n512 64,0 0,100 7,0.03\n'),
    ],
)
def test_what_larger_rounds_found(kind: str, data: bytes, tmp_path: Path) -> None:
    target = targets()[kind]
    path = tmp_path / f"input{target.suffix}"
    path.write_bytes(data)
    assert attempt(lambda: target.read(path), target.refusals) == "refused"


@pytest.mark.parametrize("option", ["--concurrency", "--max-model-len"])
def test_numbers_beyond_64_bits(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--workload", "azure-conv", "--first", "3", "--policies", "vllm", option, "9" * 20]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "compiling" not in line]
    assert len(said) == 1 and "error: " in said[0]
