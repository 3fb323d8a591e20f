"""`--policies module:Class`: a scheduler written in Python, run as one of the table is."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.cli.errors import missing_extra
from tests.cli.conftest import NUM_REQUESTS, Command
from tests.cli.test_bad_input import check

DOCS = Path(__file__).resolve().parents[2] / "docs"
(FCFS,) = re.findall(r"```python\n(.*?)```", (DOCS / "command.md").read_text(encoding="utf-8"), re.DOTALL)

FAULTY = """
import infermax_gym as ig

NUMBER = 3
CHUNKED = ig.POLICIES["sarathi"]


class Base:
    name = "faulty"
    information = ig.Information.NONE


class Raises(Base):
    def decide(self, view):
        return 1 // 0


class Nothing(Base):
    def decide(self, view):
        return None


class Waits(Base):
    def decide(self, view):
        return ig.Decision([])


class Needy(Base):
    def __init__(self, size):
        pass

    def decide(self, view):
        return ig.Decision([])


class Counts(Base):
    def __init__(self):
        self.count = 0

    def decide(self, view):
        self.count += 1
        assert view.clock_s > 0.0 or self.count == 1
        group = view.running if len(view.running) else view.waiting
        lacking = group.num_prompt_tokens[0] + group.num_generated_tokens[0] - group.num_computed_tokens[0]
        return ig.Decision([(int(group.request[0]), int(min(lacking, view.max_num_batched_tokens)))])


class First:
    name = "first"

    def choose(self, arrival):
        return int(arrival.candidates.argmax())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules, in which the command is run."""
    (tmp_path / "own_fcfs.py").write_text(FCFS)
    (tmp_path / "own_faulty.py").write_text(FAULTY)
    (tmp_path / "own_broken.py").write_text("import no_such_module_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("own_fcfs", "own_faulty", "own_broken", "own_same"):
        sys.modules.pop(name, None)


def bench(command: Command, *arguments: object) -> dict[str, Any]:
    code, out, err = command("bench", *arguments, "--json")
    assert (code, err) == (0, "")
    policies: dict[str, Any] = json.loads(out)["policies"]
    for row in policies.values():
        del row["wall_s"]
        row.get("ci95", {}).pop("wall_s", None)
    return policies


def test_it_equals_the_policy_of_the_table(command: Command, here: Path, trace: Path) -> None:
    arguments = ("--workload", trace, "--max-num-batched-tokens", 200, "--max-num-seqs", 5)
    policies = bench(command, *arguments, "--policies", "own_fcfs:Fcfs,vllm-v1")
    assert list(policies) == ["own_fcfs:Fcfs", "vllm-v1"]
    own, ours = policies.values()
    skipped = own["num_iterations"] - ours["num_iterations"]
    assert own == ours, f"{skipped} iterations more"
    alone = command("simulate", *arguments, "--policy", "own_fcfs:Fcfs", "--json").out
    assert json.loads(alone)["policies"]["own_fcfs:Fcfs"]["latency_s"] == ours["latency_s"]


def test_it_preempts_where_memory_runs_out(command: Command, here: Path, trace: Path) -> None:
    (own,) = bench(command, "--workload", trace, "--policies", "own_fcfs:Fcfs", "--kv-tokens", 500).values()
    assert own["num_finished"] == NUM_REQUESTS
    assert own["num_preemptions"] > 0


def test_each_run_gets_a_new_one(command: Command, here: Path, trace: Path) -> None:
    (row,) = bench(command, "--workload", trace, "--policies", "own_faulty:Counts", "--seeds", 2).values()
    assert row["ci95"]["latency_s"]["mean"] == 0.0


def test_a_policy_of_ones_own_goes_under_the_name_that_was_typed(command: Command, here: Path, trace: Path) -> None:
    policies = bench(command, "--workload", trace, "--policies", "own_faulty:CHUNKED,sarathi")
    assert policies["own_faulty:CHUNKED"] == policies["sarathi"]
    fleets = bench(
        command, "--workload", trace, "--policies", "own_faulty:CHUNKED,sarathi", "--replicas", 2,
        "--routers", "own_faulty:First,round-robin",
    )  # fmt: skip
    assert len(fleets) == 4
    assert fleets["own_faulty:CHUNKED + round-robin"] == fleets["sarathi + round-robin"]
    assert fleets["sarathi + first"]["request_imbalance"] == 2.0


def test_two_routers_of_one_name_are_not_mixed_up(command: Command, here: Path, trace: Path) -> None:
    (here / "own_same.py").write_text(FAULTY.replace('"first"', '"round-robin"'))
    arguments = ("--workload", trace, "--replicas", 2, "--routers", "round-robin,own_same:First")
    check(command("bench", *arguments), "two of the fleets are called 'vllm + round-robin'")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("own_nowhere:Fcfs", "policy cannot import 'own_nowhere': ModuleNotFoundError"),
        ("own_broken:Fcfs", "policy cannot import 'own_broken': ModuleNotFoundError: No module named 'no_such"),
        ("own_fcfs:Fcsf", "'own_fcfs' has no 'Fcsf'"),
        ("own_fcfs:", "expected module:name"),
        ("own_faulty:NUMBER", "own_faulty:NUMBER is 'int'; expected a Policy, or an object or class with `name`"),
        ("own_faulty:Base", "own_faulty:Base is 'Base'; expected a Policy"),
        ("own_faulty:Needy", "own_faulty:Needy cannot be made without arguments: TypeError"),
        ("own_faulty:Raises", "decide raised ZeroDivisionError"),
        ("own_faulty:Nothing", "cannot read its decision"),
        ("own_faulty:Waits", "scheduler 'own_faulty:Waits' returned nothing"),
    ],
)
def test_mistakes_take_one_line(command: Command, here: Path, trace: Path, name: str, hint: str) -> None:
    check(command("simulate", "--workload", trace, "--policy", name), hint)


def test_the_line_says_where_it_raised(command: Command, here: Path, trace: Path) -> None:
    outcome = command("bench", "--workload", trace, "--policies", "own_faulty:Raises")
    line = FAULTY.splitlines().index("        return 1 // 0") + 1
    check(outcome, f"(own_faulty.py, line {line})")


def test_fleets_run_policies_of_the_kernel(command: Command, here: Path, trace: Path) -> None:
    outcome = command("bench", "--workload", trace, "--policies", "own_fcfs:Fcfs", "--replicas", 2)
    check(outcome, "own_fcfs:Fcfs is written in Python")


@pytest.mark.parametrize(
    ("package", "extra"), [("torch", "agents"), ("cma", "agents"), ("ortools", "optimum"), ("matplotlib", "viewer")]
)
def test_a_missing_package_names_its_extra(package: str, extra: str) -> None:
    error = missing_extra(ModuleNotFoundError("no", name=f"{package}.part"))
    assert error is not None
    assert str(error) == f"this needs {package}, which is not installed: pip install 'infermax-gym[{extra}]'"


def test_other_missing_modules_are_faults_of_ours() -> None:
    assert missing_extra(ModuleNotFoundError("no", name="infermax_gym.nowhere")) is None


@pytest.mark.parametrize("arguments", [("list", "agents"), ("simulate", "--agent", "generalist")])
def test_agents_without_their_extra(
    command: Command, trace: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("infermax_gym.agents", "safetensors"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    workload = ("--workload", trace) if arguments[0] == "simulate" else ()
    check(command(*arguments, *workload), "pip install 'infermax-gym[agents]'")
