"""What an installed package adds by entry points: a distribution that pretends to be installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from infermax_gym.plugins import GROUPS, PluginError, find_plugins, load_object
from tests.cli.conftest import Command
from tests.cli.test_bad_input import check

MODULE = """
from dataclasses import replace

import infermax_gym as ig
from infermax_gym.workload import AllAtOnce, Constant, Joint

SPRINT = replace(ig.POLICIES["sarathi"], name="sprint", note="as sarathi", source="this test")
IMPOSTOR = ig.POLICIES["sarathi"]
MINE = ig.Router("mine", note="round robin", source="this test")
COST = replace(ig.COSTS["llama2-7b-a100"], name="their-gpu")
BURST = ig.WorkloadPreset("burst", "all at once", AllAtOnce, lambda: Joint(Constant(100), Constant(10)))


class Alone:
    name = "alone"
    information = ig.Information.NONE

    def decide(self, view):
        group = view.running if len(view.running) else view.waiting
        lacking = group.num_prompt_tokens[0] + group.num_generated_tokens[0] - group.num_computed_tokens[0]
        return ig.Decision([(int(group.request[0]), int(min(lacking, view.max_num_batched_tokens)))])


def read(path):
    with open(path) as file:
        times = [float(line) for line in file]
    return ig.Workload(times, [50] * len(times), [5] * len(times))
"""

ENTRY_POINTS = """
[infermax_gym.policies]
sprint = their_module:SPRINT
alone = their_module:Alone
other-name = their_module:IMPOSTOR
broken = their_module:NOWHERE
absent = no_such_module_at_all:X
orca = their_module:SPRINT
[infermax_gym.routers]
mine = their_module:MINE
[infermax_gym.workloads]
burst = their_module:BURST
times = their_module:read
[infermax_gym.costs]
their-gpu = their_module:COST
"""


def distribution(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "their_module.py").write_text(MODULE)
    distribution(folder, "their-package", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "their_module", raising=False)
    yield folder  # type: ignore[misc]
    sys.modules.pop("their_module", None)


def test_nothing_is_imported_before_it_is_asked_for(theirs: Path) -> None:
    found, wrong = find_plugins("policies", ["orca"])
    assert set(found) == {"sprint", "alone", "other-name", "broken", "absent"}
    assert list(wrong) == ["orca"]
    assert "their_module" not in sys.modules
    assert found["sprint"].load().name == "sprint"
    assert found["sprint"].distribution == "their-package"


def test_all_kinds_are_listed_with_their_package(command: Command, theirs: Path) -> None:
    for kind, name in (("routers", "mine"), ("workloads", "burst"), ("workloads", "times"), ("costs", "their-gpu")):
        outcome = command("list", kind, "--json")
        (row,) = (row for row in json.loads(outcome.out)[kind] if row["name"] == name)
        assert (outcome.err, row["package"]) == ("", "their-package")
    assert "their-package" in command("list", "routers").out


def test_what_cannot_be_used_is_warned_of_in_one_line_each(command: Command, theirs: Path) -> None:
    outcome = command("list", "policies", "--json")
    assert outcome.code == 0
    names = [row["name"] for row in json.loads(outcome.out)["policies"]]
    assert {"sprint", "alone"} <= set(names) and names.count("orca") == 1
    assert not {"broken", "absent", "other-name"} & set(names)
    lines = outcome.err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("infermax: warning: ") and "'their-package'" in line for line in lines)
    assert all(any(f"'{name}'" in line for line in lines) for name in ("broken", "absent", "other-name", "orca"))


def figures(command: Command, *arguments: object) -> dict[str, dict[str, object]]:
    outcome = command("bench", *arguments, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    policies: dict[str, dict[str, object]] = json.loads(outcome.out)["policies"]
    for row in policies.values():
        del row["wall_s"]
    return policies


def test_a_policy_of_theirs_is_run(command: Command, theirs: Path, trace: Path) -> None:
    policies = figures(command, "--workload", trace, "--policies", "sprint,sarathi,alone", "--kv-tokens", 1000)
    assert policies["sprint"] == policies["sarathi"]
    assert policies["alone"]["num_finished"] == policies["sarathi"]["num_finished"]


def test_a_router_of_theirs_is_run(command: Command, theirs: Path, trace: Path) -> None:
    policies = figures(command, "--workload", trace, "--replicas", 2, "--routers", "mine,round-robin")
    assert policies["vllm + mine"] == policies["vllm + round-robin"]


def test_their_cost_and_their_workloads(command: Command, theirs: Path, tmp_path: Path) -> None:
    arguments = ("--policies", "sarathi", "--cost", "their-gpu")
    (row,) = figures(command, *arguments, "--workload", "burst", "--first", 7).values()
    assert row["num_requests"] == 7
    (tmp_path / "times.txt").write_text("0.0\n1.0\n3.0\n9.0\n")
    source = f"times:{tmp_path / 'times.txt'}"
    (row,) = figures(command, *arguments, "--workload", source, "--skip", 1, "--time-scale", 0.5).values()
    assert row["num_requests"] == 3
    assert 4.0 < float(str(row["makespan_s"])) < 4.5


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--policies", "broken"], "'broken' of the package 'their-package' (infermax_gym.policies)"),
        (["--policies", "absent"], "cannot import 'no_such_module_at_all': ModuleNotFoundError"),
        (["--policies", "other-name"], "calls itself 'sarathi'"),
        (["--policies", "sprnt"], "did you mean 'sprint'?"),
        (["--workload", "burst:file"], "'burst' is a preset; expected --workload burst"),
        (["--workload", "times"], "'times' is a reader of trace files; expected --workload times:PATH"),
        (["--workload", "times:nowhere.txt"], "its package raised FileNotFoundError"),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_faults_of_theirs_take_one_line(
    command: Command, theirs: Path, trace: Path, arguments: list[str], hint: str
) -> None:
    workload = () if "--workload" in arguments else ("--workload", trace)
    check(command("bench", *workload, *arguments), hint)


def test_our_names_stay_ours(command: Command, theirs: Path, trace: Path) -> None:
    code, out, err = command("bench", "--workload", trace, "--policies", "orca", "--json")
    assert code == 0 and json.loads(out)["policies"]["orca"]["num_finished"] > 0
    assert err.count("\n") == 1
    assert "'orca' of the package 'their-package' (infermax_gym.policies) is a name of infermax-gym itself" in err


def test_a_name_that_two_packages_claim_is_neithers(command: Command, theirs: Path, trace: Path) -> None:
    distribution(theirs, "another-package", "[infermax_gym.policies]\nsprint = their_module:SPRINT\n")
    outcome = command("bench", "--workload", trace, "--policies", "sprint")
    check(outcome, "'sprint' (infermax_gym.policies) is claimed more than once, by another-package and their-package")


def test_groups_are_named_after_the_package() -> None:
    assert set(GROUPS.values()) == {f"infermax_gym.{kind}" for kind in GROUPS}


@pytest.mark.parametrize("reference", ["json", ":x", "json:"])
def test_references_have_two_parts(reference: str) -> None:
    with pytest.raises(PluginError, match="expected module:name"):
        load_object(reference, "costs")
