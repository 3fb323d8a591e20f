"""What is installed: one top-level package with all its data, beside other people's `agents` and `baselines`.

agents/ and baselines/ are folders of their own, reached by links in infermax_gym/; whether setuptools follows them
is what this is about.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from scripts import packages
from tests.test_architecture import tracked

ROOT = Path(__file__).resolve().parent.parent
WITH_INDEX = os.environ.get("INFERMAX_TEST_INDEX") == "1"
"""Whether packages may be fetched from the index; .ci/run says so."""

STAND_IN = "WHOSE = 'somebody else'\n"


def run(*command: object, where: Path | None = None, **environment: str) -> str:
    """Standard output of a process that must succeed."""
    cleaned = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "INFERMAX"))}
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=where, env=cleaned | environment, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, so that building leaves nothing in it."""
    folder = tmp_path_factory.mktemp("source") / "repository"
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", where=ROOT).splitlines()
    for name in listed:
        original, copy = ROOT / name, folder / name
        if original.is_symlink() or original.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(original, copy, follow_symlinks=False)
    assert (folder / "infermax_gym" / "agents").is_symlink()
    return folder


def build(source: Path, folder: Path, kind: str) -> Path:
    """An archive, made by the build backend without a network."""
    code = f"import setuptools.build_meta as backend; print(backend.build_{kind}({str(folder)!r}))"
    return folder / run(sys.executable, "-c", code, where=source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("wheel"), "wheel")


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if ".dist-info/" not in name)


def expected() -> list[str]:
    """Every file of the package, of agents/ and of baselines/ that a wheel must hold."""
    kinds = {".py", ".csv", ".json", ".jsonl", ".safetensors", ".typed", ".css", ".js"}
    names = []
    for path in tracked("infermax_gym", "agents", "baselines"):
        where = path.relative_to(ROOT).as_posix()
        if path.suffix in kinds and not path.is_symlink():
            names.append(where if where.startswith("infermax_gym/") else f"infermax_gym/{where}")
    return sorted(names)


def test_a_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    names = names_in(wheel)
    assert {name.partition("/")[0] for name in names} == {"infermax_gym"}
    assert names == expected()
    for name in (
        "py.typed",
        "cost/engines/table.jsonl",
        "workload/fitted.json",
        "baselines/optimum/solved.json",
        "agents/zoo/generalist.safetensors",
    ):
        assert f"infermax_gym/{name}" in names


def test_a_source_archive_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    archive = build(source, tmp_path, "sdist")
    with tarfile.open(archive) as packed:
        assert not [member.name for member in packed if member.issym() or member.islnk()]
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not (unpacked / "tests").exists()
    (tmp_path / "again").mkdir()
    assert names_in(build(unpacked, tmp_path / "again", "wheel")) == names_in(wheel)


class Environment:
    """A fresh environment that borrows what infermax_gym depends on from this one."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        site = next((folder / "lib").glob("python*/site-packages"))
        # A path in a .pth file is searched, but its own .pth files, such as those of editable installs, are not.
        (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")

    def pip(self, *arguments: object) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", *arguments)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.pip("--no-deps", "--no-index", wheel)
    return environment


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other people's packages of the names of our folders."""
    folder = tmp_path_factory.mktemp("strangers")
    for name in ("agents", "baselines", "experiments"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(STAND_IN)
    return folder


def test_it_works_beside_strangers_of_the_same_names(installed: Environment, strangers: Path, tmp_path: Path) -> None:
    code = (
        "import agents, baselines, experiments, infermax_gym as ig;"
        "print(agents.WHOSE == baselines.WHOSE == experiments.WHOSE, ig.__file__);"
        "print(len(ig.list_agents()), ig.load_agent('generalist').kind, len(ig.POLICIES))"
    )
    first, second = run(installed.python, "-c", code, where=tmp_path, PYTHONPATH=str(strangers)).splitlines()
    assert first.startswith("True ") and str(installed.python.parent.parent) in first
    zoo = len(tracked("agents/zoo/*.safetensors"))
    assert second.startswith(f"{zoo} controller ") or second.startswith(f"{zoo} policy ")
    listed = run(
        installed.python, "-m", "infermax_gym", "list", "agents", "--json", where=tmp_path, PYTHONPATH=str(strangers)
    )
    assert len(json.loads(listed)["agents"]) == zoo


def test_the_command_is_installed(installed: Environment, tmp_path: Path) -> None:
    command = installed.python.parent / "infermax"
    assert "generalist" in run(command, "list", "agents", where=tmp_path)


def test_an_editable_install_has_everything(source: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "editable")
    environment.pip("--no-deps", "--no-index", "--no-build-isolation", "--editable", source)
    code = "import infermax_gym as ig; print(ig.__file__); print(len(ig.list_agents()), len(ig.POLICIES))"
    where, counts = run(environment.python, "-c", code, where=tmp_path).splitlines()
    assert Path(where).is_relative_to(source)
    assert int(counts.split()[0]) == len(tracked("agents/zoo/*.safetensors"))


@pytest.mark.skipif(not WITH_INDEX, reason="fetches openai-agents from the index: INFERMAX_TEST_INDEX=1")
def test_it_works_beside_the_real_package_agents(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "beside")
    try:
        environment.pip("openai-agents")
    except AssertionError as error:
        pytest.skip(f"the index does not give openai-agents: {str(error).splitlines()[-1]}")
    environment.pip("--no-deps", "--no-index", wheel)
    code = "import agents, infermax_gym as ig; print(agents.Runner.__name__, len(ig.list_agents()))"
    assert run(environment.python, "-c", code, where=tmp_path).split()[0] == "Runner"
    assert "generalist" in run(environment.python, "-m", "infermax_gym", "list", "agents", where=tmp_path)


def test_a_python_is_found_behind_a_shim_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("shims", "real"):
        (tmp_path / name).mkdir()
    shim = tmp_path / "shims" / f"python{version}"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    (tmp_path / "real" / f"python{version}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}:{tmp_path / 'real'}")
    assert packages.interpreter(version) is not None
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    assert packages.interpreter(version) is None


def test_every_extra_is_tried_and_the_oldest_versions_are_those_of_the_project() -> None:
    declared = set(re.findall(r"^(\w+) = \[", packages.section("optional-dependencies"), re.MULTILINE))
    assert declared - {"all", "dev"} == set(packages.EXTRAS)
    assert declared >= packages.COMPILING | packages.PINNED
    assert "typer==0.16.*" in packages.lowest(packages.requirements())


def test_the_package_can_be_run_by_its_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        lines = archive.read(name).decode().splitlines()
    assert {"infermax = infermax_gym.cli:main", "infermax-gym = infermax_gym.cli:main"} <= set(lines)
