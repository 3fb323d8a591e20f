"""What is published, tried as its users meet it: `make packages`.

    python scripts/packages.py [--pythons 3.11,3.12] [--extras agents,optimum] [--folder DIR] [--no-installs]

1. Wheel and source archive are built twice and must be equal byte for byte.
2. In a fresh environment of each Python from 3.10 to 3.13 that is on this machine: the wheel with the least it depends
   on, newest versions, and oldest allowed ones on the oldest Python; then with each extra alone, which must be
   of use. Each must make an environment, run a policy, run `infermax bench`, complete a command, and refuse a policy
   that does not exist with exit code 2. `--light` leaves out what compiles the simulator.
3. A user's program with our types passes mypy and pyright, where they can be installed.
4. `pipx run --spec WHEEL infermax-gym`, as somebody runs it who installs nothing.

Needs the package index for 2 and 3. Says what it tried and what it could not; ends with 1 if something failed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EPOCH = 1_700_000_000  # of builds that no one has given a time
BENCH = ("bench", "--workload", "azure-conv", "--first", "20", "--policies", "vllm,srf", "--json")
PROGRAM = """\
import gymnasium, infermax_gym
env = gymnasium.make("InferMax-v0", num_requests=5)
observation, info = env.reset(seed=0)
env.step(int(info["action_mask"].argmax()))
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import make_workload
print(simulate(make_workload("azure-conv", 20, seed=0), EngineConfig(), POLICIES["vllm"]).makespan_s)
"""
TYPED = """\
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.engine.policy import Policy
from infermax_gym.workload import Workload, make_workload

workload: Workload = make_workload("azure-conv", 20, seed=0)
result: SimulationResult = simulate(workload, EngineConfig(num_kv_tokens=8_000), Policy("mine"))
makespan_s: float = result.makespan_s
"""
EXTRAS = {
    "sweep": "infermax sweep study.json --dry-run",
    "ray": "python -c import\tray,infermax_gym.sweep.on_ray",
    "optimum": "infermax optimal instance.json --objective makespan --workers 1",
    "viewer": "python -c import\tmatplotlib,infermax_gym.viewer,infermax_gym.cli.cost_picture",
    "fit": "python -c import\tscipy.optimize,infermax_gym.cli.fit",
    "data": "python -c import\tminari,infermax_gym.cli.dataset",
    "agents": "infermax bench --workload azure-conv --first 20 --policies vllm --agent generalist",
    "docs": "python -c import\tmaterial,mkdocstrings",
}
"""What each extra is there for; a tab within a word stands for a space."""
COMPILING = {"optimum", "agents"}
"""Extras whose command compiles the simulator."""
PINNED = {"agents"}
"""Extras that are installed with the versions of constraints.txt: torch has a build for every kind of machine."""
STUDY = '{"policies": ["vllm"], "workloads": [{"source": "azure-conv", "first": 5}]}'
INSTANCE = (
    '{"requests": [{"arrival_s": 0.0, "num_prompt_tokens": 2, "num_output_tokens": 6}], "kv_tokens": 20, '
    '"cost": "llama2-7b-a100"}'
)


def run(*words: object, where: Path | None = None, **variables: str) -> str:
    """Standard output of a process that must succeed; RuntimeError with its last lines."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept.setdefault("SOURCE_DATE_EPOCH", str(EPOCH))
    kept |= variables
    done = subprocess.run([str(word) for word in words], cwd=where, env=kept, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout).strip().splitlines()[-3:]
        raise RuntimeError(f"{' '.join(map(str, words))[:120]}: {' | '.join(last)}")
    return done.stdout


def source_copy(folder: Path) -> Path:
    """The files that git knows, each with the same time, and links as links."""
    for name in run("git", "ls-files", where=ROOT).splitlines():
        original, copy = ROOT / name, folder / name
        if original.is_symlink() or original.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(original, copy, follow_symlinks=False)
            os.utime(copy, (EPOCH, EPOCH), follow_symlinks=False)
    return folder


def build(source: Path, out: Path) -> list[Path]:
    """Wheel and source archive, whose bytes depend on the sources and SOURCE_DATE_EPOCH alone."""
    out.mkdir()
    made = []
    for kind in ("wheel", "sdist"):
        code = f"import setuptools.build_meta as backend; print(backend.build_{kind}({str(out)!r}))"
        made.append(out / run(sys.executable, "-c", code, where=source).splitlines()[-1])
    normalise(made[1])
    return made


def normalise(archive: Path) -> None:
    """Pack a source archive anew: names in order, one time, no owner."""
    with tarfile.open(archive) as packed:
        members = sorted(packed.getmembers(), key=lambda member: member.name)
        contents = {m.name: reader.read() for m in members if (reader := packed.extractfile(m)) is not None}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for member in members:
            fresh = tarfile.TarInfo(member.name)
            fresh.type, fresh.mtime, fresh.size = member.type, EPOCH, len(contents.get(member.name, b""))
            fresh.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            packed.addfile(fresh, io.BytesIO(contents.get(member.name, b"")))
    archive.write_bytes(gzip.compress(plain.getvalue(), mtime=0))


def lowest(wheel_requirements: list[str]) -> list[str]:
    """`numpy>=1.26` as `numpy==1.26`, the lowest allowed."""
    return [one.replace(">=", "==") + ".*" for one in wheel_requirements]


def section(name: str) -> str:
    """The text of a table of pyproject.toml, without its title."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.partition(f"\n[project.{name}]\n")[2].partition("\n[")[0]


def requirements() -> list[str]:
    """What the core depends on, of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^dependencies = \[(.*)\]$", text, re.MULTILINE)
    assert found is not None
    return re.findall(r'"([^"]+)"', found.group(1))


def interpreter(version: str) -> str | None:
    """The first Python of this version on PATH that answers; a shim of a version manager may not."""
    for folder in os.get_exec_path():
        found = shutil.which(f"python{version}", path=folder)
        try:
            if found:
                return run(found, "-c", "import sys; print(sys.executable)").strip()
        except RuntimeError:
            continue
    return None


def environment(folder: Path, python: str, *packages: object) -> Path:
    """A fresh environment with some packages; its interpreter."""
    shutil.rmtree(folder, ignore_errors=True)
    run(python, "-m", "venv", folder)
    return install(folder, *packages)


def install(folder: Path, *packages: object) -> Path:
    """Packages into an environment; its interpreter."""
    inside = folder / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", "--no-compile", *packages)
    return inside


def copy_compiled(folder: Path) -> None:
    """What this checkout has compiled, into an environment: an install keeps what was compiled of equal sources."""
    (package,) = folder.glob("lib/python*/site-packages/infermax_gym")
    for kept in (ROOT / "infermax_gym").rglob("__pycache__/*.nb[ic]"):
        copy = package / kept.relative_to(ROOT / "infermax_gym")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(kept, copy)


def smoke(inside: Path, folder: Path, light: bool, **compiled: str) -> None:
    """What every user does first; `light` compiles nothing."""
    infermax = inside.with_name("infermax")
    run(infermax, "--version")
    run(infermax, "list", "policies", "--json")
    first_contact(infermax)
    if not light:
        run(inside, "-c", PROGRAM, where=folder, **compiled)
        run(infermax, *BENCH, where=folder, **compiled)


def of_use(inside: Path, folder: Path, extra: str, **compiled: str) -> None:
    """What an extra is there for."""
    (folder / "study.json").write_text(STUDY, encoding="utf-8")
    (folder / "instance.json").write_text(INSTANCE, encoding="utf-8")
    name, *words = [word.replace("\t", " ") for word in EXTRAS[extra].split(" ")]
    run(inside.with_name(name), *words, where=folder, **compiled)


def first_contact(infermax: Path) -> None:
    """The shell completes `infermax be`, and a policy that does not exist ends with code 2 and one line."""
    completed = run(infermax, _INFERMAX_COMPLETE="complete_bash", COMP_WORDS="infermax be", COMP_CWORD="1")
    if completed.split() != ["bench"]:
        raise RuntimeError(f"`infermax be` was completed to {completed!r}")
    refused = subprocess.run([infermax, *BENCH[:5], "--policies", "nobody"], capture_output=True, text=True)
    if refused.returncode != 2 or len(refused.stderr.splitlines()) != 1:
        raise RuntimeError(f"a policy that does not exist: code {refused.returncode}, {refused.stderr[-200:]!r}")


def without_installing(wheel: Path, folder: Path, python: str) -> None:
    """`pipx run infermax-gym`, with the environment that it makes for itself: what it says is JSON and no more."""
    inside = environment(folder, python, "pipx")
    home = {"PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(folder / "pipx-bin")}
    words = ("list", "policies", "--json")
    json.loads(run(inside, "-m", "pipx", "run", "--spec", wheel, "infermax-gym", *words, where=folder, **home))


def typed(inside: Path, folder: Path) -> None:
    """A user's program under mypy and pyright."""
    (folder / "program.py").write_text(TYPED, encoding="utf-8")
    run(inside, "-m", "pip", "install", "--quiet", "--no-compile", "mypy", "pyright")
    run(inside, "-m", "mypy", "--strict", "program.py", where=folder)
    run(inside.with_name("pyright"), "--pythonpath", inside, "program.py", where=folder)


Try = tuple[str, Callable[[], None]]


def tries(wheel: Path, folder: Path, python: str, options: argparse.Namespace, oldest: bool) -> Iterator[Try]:
    """What there is to try on a Python, by name.

    All environments of a Python have the same path, one after another, so that they share what is compiled. An extra
    is added to a copy of the fresh environment.
    """
    compiled = {} if options.compiled else {"NUMBA_CACHE_DIR": f"{folder}-compiled"}
    fresh = folder.with_name(f"{folder.name}-fresh")

    def with_least(*packages: object) -> None:
        inside = environment(folder, python, wheel, *packages)
        if options.compiled:
            copy_compiled(folder)
        if not packages:
            shutil.copytree(folder, fresh, symlinks=True, copy_function=os.link)
        smoke(inside, folder, options.light, **compiled)

    def with_extra(extra: str) -> None:
        shutil.rmtree(folder)
        shutil.copytree(fresh, folder, symlinks=True, copy_function=os.link)
        pins = ("--constraint", ROOT / "constraints.txt") if extra in PINNED else ()
        inside = install(folder, f"{wheel}[{extra}]", *pins)
        if not (options.light and extra in COMPILING):
            of_use(inside, folder, extra, **compiled)

    yield "newest", with_least
    if not options.light:
        yield "mypy and pyright", lambda: typed(folder / "bin" / "python", folder)
    for extra in filter(None, options.extras.split(",")):
        yield f"extra {extra}", partial(with_extra, extra)
    yield "pipx run", lambda: without_installing(wheel, folder, python)
    if oldest:
        yield "oldest", lambda: with_least(*lowest(requirements()))


def tried(wheel: Path, base: Path, version: str, options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """What was tried on a Python, and what was wrong with it or None."""
    python = interpreter(version)
    if python is None:
        print(f"not tried: Python {version} is not on this machine")
        return
    for label, attempt in tries(wheel, base / version, python, options, version == PYTHONS[0]):
        if options.only and label not in options.only.split(","):
            continue
        began_s = time.monotonic()
        try:
            attempt()
            error = None
        except RuntimeError as fault:
            error = str(fault)
        yield f"Python {version}, {label} ({time.monotonic() - began_s:.0f} s)", error


def main() -> int:
    """Try everything; 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--extras", default=",".join(EXTRAS), help="each tried alone")
    parser.add_argument("--folder", type=Path, help="keep the archives here")
    parser.add_argument("--no-installs", action="store_true", help="only build")
    parser.add_argument("--pythons", default=",".join(PYTHONS), help="versions")
    parser.add_argument("--light", action="store_true", help="import, list and show the version; compile nothing")
    parser.add_argument("--compiled", action="store_true", help="take what this checkout has compiled for the Python")
    parser.add_argument("--only", default="", help="of what there is to try: newest, oldest, pipx run, ...")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        first = build(source_copy(base / "one"), base / "built")
        again = build(source_copy(base / "other"), base / "again")
        for one, other in zip(first, again, strict=True):
            same = one.read_bytes() == other.read_bytes()
            failed += not same
            print(f"{'equal twice' if same else 'NOT EQUAL TWICE'}: {one.name}")
            if options.folder is not None:
                options.folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(one, options.folder)
        if options.no_installs:
            return min(failed, 1)
        for version in options.pythons.split(","):
            for label, error in tried(first[0], base, version, options):
                failed += error is not None
                print(
                    f"{'works' if error is None else 'FAILED'}: {label}{'' if error is None else f': {error}'}",
                    flush=True,
                )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
