"""The project layout: who may import whom, how large files grow, what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "infermax_gym"
PACKAGES = ("infermax_gym", "baselines", "agents", "experiments")

# What each part may import of the project. `compile`, `streams` and `files` say how functions are compiled, how seeds
# split and how files are written; everybody may use them.
_GROUND = {"compile", "streams", "files"}
_BELOW_ENGINE = _GROUND | {"cost", "workload"}
_BELOW_ENVS = _BELOW_ENGINE | {"engine"}
_BELOW_EVALUATION = _BELOW_ENVS | {"cluster", "envs"}
_BELOW_VIEWER = _BELOW_EVALUATION | {"evaluation"}
MAY_IMPORT = {
    "compile": set(),
    "streams": set(),
    "files": set(),
    "cost": _GROUND,
    "workload": _GROUND,
    "profiler": _BELOW_ENGINE,
    "engine": _BELOW_ENGINE,
    "cluster": _BELOW_ENVS,
    "envs": _BELOW_ENVS | {"cluster"},
    "testing": _BELOW_EVALUATION,
    "evaluation": _BELOW_EVALUATION,
    "viewer": _BELOW_VIEWER,
    "suite": {*_BELOW_VIEWER, "baselines", "agents"},
    "vllm": {"cost", "workload", "engine", "envs", "baselines", "agents"},
    "plugins": _BELOW_EVALUATION - {"envs"},
    "sweep": {"files"},
    "__init__": {*_BELOW_VIEWER, "baselines", "agents", "suite"},  # names, each imported when it is used
    "cli": {*_BELOW_VIEWER, "plugins", "viewer", "profiler", "sweep", "baselines", "agents", "suite", "vllm"},
    "__main__": {"cli"},
    "baselines": _BELOW_ENVS | {"cluster"},
    "agents": {*_BELOW_VIEWER, "viewer", "baselines"},
    "experiments": {*_BELOW_VIEWER, "viewer", "baselines", "agents", "testing", "profiler", "vllm", "suite"},
}

CORE_DEPENDENCIES = {"numpy", "numba", "gymnasium", "rich", "typer"}
# Optional dependencies, and the folders and files that may import them.
OPTIONAL_DEPENDENCIES: dict[str, str | tuple[str, ...]] = {
    "matplotlib": ("infermax_gym/viewer/", "experiments/"),
    "ortools": "baselines/optimum/",
    "torch": ("agents/", "experiments/", "infermax_gym/profiler/", "infermax_gym/vllm/"),
    "stable_baselines3": ("agents/", "experiments/"),
    "scipy": ("experiments/", "infermax_gym/cost/"),
    "aiconfigurator_core": "experiments/engines/",
    "sb3_contrib": ("agents/", "experiments/"),
    "safetensors": "agents/",
    "pyarrow": "infermax_gym/sweep/",
    "ray": "infermax_gym/sweep/",
    "yaml": "infermax_gym/sweep/",
    "cma": ("agents/", "experiments/"),
    "minari": "infermax_gym/suite/",
    "tensorboard": "agents/",
    "tqdm": "agents/",
    "playwright": "experiments/",
    "PIL": "experiments/",
    "vllm": "infermax_gym/vllm/",
}


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, or is about to know."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for line in listing.stdout.splitlines() if (path := ROOT / line).is_file()]


def modules() -> list[Path]:
    return [path for path in tracked("*.py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def part_of(path: Path) -> str:
    """The part of the project that a file belongs to, such as `engine` or `baselines`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "infermax_gym" else parts[0]


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            base = node.module or ""
            if base == "infermax_gym":  # `from infermax_gym import engine` imports a part
                names.update(f"{base}.{alias.name}" for alias in node.names)
            else:
                names.add(base)
    return names


def project_parts(names: set[str]) -> set[str]:
    parts = set()
    for name in names:
        top, _, rest = name.partition(".")
        if top == "infermax_gym" and rest:
            parts.add(rest.split(".")[0])
        elif top == "experiments":
            parts.add(top)
    return parts


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_dependency_direction(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is no part of the project yet; say here what it may import"
    known = {name for name in project_parts(imported(path)) if name in MAY_IMPORT}
    forbidden = known - MAY_IMPORT[part] - {part}
    assert not forbidden, f"{path.relative_to(ROOT)}: {part} must not import {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_third_party_imports(path: Path) -> None:
    where = path.relative_to(ROOT).as_posix()
    for name in {name.partition(".")[0] for name in imported(path)}:
        if name in sys.stdlib_module_names or name in PACKAGES or name in CORE_DEPENDENCIES:
            continue
        assert name in OPTIONAL_DEPENDENCIES, f"{where}: {name} is not a dependency"
        assert where.startswith(OPTIONAL_DEPENDENCIES[name]), f"{where}: only {OPTIONAL_DEPENDENCIES[name]} has {name}"


@pytest.mark.parametrize("path", tracked("*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long(path: Path) -> None:
    most = 400 if path.relative_to(ROOT).parts[0] in PACKAGES else 500
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


def test_packages_are_type_checked() -> None:
    """A package that mypy does not know would go unchecked without anybody noticing."""
    checked = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert checked is not None
    for package in ("infermax_gym", "experiments"):  # agents and baselines are packages of infermax_gym
        assert f'"{package}"' in checked.group(1), f"add {package} to [tool.mypy] packages"


@pytest.mark.parametrize("path", tracked("*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_bare_imports(path: Path) -> None:
    """`agents` and `baselines` are names of other people's packages, too."""
    bare = {name for name in imported(path) if name.partition(".")[0] in ("agents", "baselines")}
    assert not bare, f"{path.relative_to(ROOT)}: import infermax_gym.agents and infermax_gym.baselines, not {bare}"


def test_no_machine_paths() -> None:
    """A path of somebody's machine works nowhere else."""
    pattern = re.compile(r"(?<![\w.~/-])/(?:home|root|work|Users|opt|mnt|tmp)/\w")
    found = []
    for path in tracked():
        if path.suffix in {".csv", ".jsonl", ".safetensors", ".png", ".gz", ".npz"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found, found


@pytest.mark.parametrize(
    "statement",
    [
        "import infermax_gym",
        "from infermax_gym.cli import main; main(['--help'])",
        "import infermax_gym.vllm",
    ],
)
def test_import_is_light(statement: str) -> None:
    """Whatever is slow or optional is met where it is used, and not by importing the package or asking for help."""
    heavy = ("numba", "torch", "stable_baselines3", "ortools", "matplotlib", "scipy", "pandas")
    heavy += ("infermax_gym.baselines", "infermax_gym.agents")
    code = f"{statement}; import sys; print([name for name in {heavy!r} if name in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.splitlines()[-1] == "[]"
