"""A scheduler's source, run in a process of its own with limits; it hands back decisions, never a score.

The source is checked first (`infermax_gym.suite.source`). The process has limits on processor time, memory and what it
may write, an empty folder as its place, and no environment variables; what it leaves behind ends with it. That stops
mistakes and shortcuts: loops without end, memory without end, output without end, a look at the future. It is no wall
against malice: run strangers' source in a container.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from infermax_gym.suite.source import MODULES, check_source
from infermax_gym.suite.tasks import SuiteError, Task, Variant, task_of

if TYPE_CHECKING:
    from infermax_gym.suite.play import SuiteAgent

_START = "import sys; sys.path[:] = {path!r}; from infermax_gym.suite.sandbox import _child; _child()"
_MOST_SOURCE = 100_000


@dataclass(frozen=True)
class Limits:
    """What the process may use.

    Attributes:
        cpu_s: processor seconds, importing included.
        wall_s: seconds by the clock.
        memory_bytes: of address space, of which the engine's compiler alone takes about a gigabyte.
        output_bytes: of every file it writes, its answer included.
        modules: that the source may import from.
    """

    cpu_s: int = 60
    wall_s: float = 120.0
    memory_bytes: int = 4 * 2**30
    output_bytes: int = 16 * 2**20
    modules: tuple[str, ...] = MODULES


def decisions_of(source: str, task: Task, episodes: Sequence[tuple[Variant, int]], limits: Limits) -> list[str]:
    """Packed decisions of a scheduler, episode by episode.

    Args:
        source: Python that defines a class `Scheduler` with `decide(view)`, see `infermax_gym.engine.Scheduler`.
        task: what it plays.
        episodes: variants and seeds.
        limits: of the process.

    Raises:
        SuiteError: it leaves the fence, ran into a limit, or raised something; one line.
    """
    if len(source) > _MOST_SOURCE:
        raise SuiteError(f"the source has {len(source):,} characters; at most {_MOST_SOURCE:,}")
    check_source(source, limits.modules)
    variants = [*task.train, *task.test]
    order: dict[str, Any] = {"source": source, "task": task.id, "limits": asdict(limits)}
    order["episodes"] = [(variants.index(variant), seed) for variant, seed in episodes]
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    start = _START.format(path=[here, *(p for p in sys.path if p)])
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile(dir=folder) as answer:
        code = _ended(start, json.dumps(order).encode(), answer, folder, limits)
        answer.seek(0)
        data = answer.read(limits.output_bytes)
    if code < 0:
        raise SuiteError(
            f"the source was ended by signal {-code}: it ran into a limit (cpu_s={limits.cpu_s}, "
            f"memory_bytes={limits.memory_bytes:,}, output_bytes={limits.output_bytes:,})"
        )
    return _read(data, len(episodes))


def _ended(start: str, order: bytes, answer: IO[bytes], folder: str, limits: Limits) -> int:
    """Run the process to its end, and end what it has left behind; its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", start],
        stdin=subprocess.PIPE,
        stdout=answer,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    try:
        process.communicate(order, timeout=limits.wall_s)
    except subprocess.TimeoutExpired:
        raise SuiteError(f"the source ran longer than {limits.wall_s:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode


def _read(data: bytes, count: int) -> list[str]:
    try:
        said = json.loads(data)
        decisions = said.get("decisions") if isinstance(said, dict) else None
    except (ValueError, RecursionError):
        raise SuiteError("the source ended its process without an answer") from None
    if isinstance(said, dict) and isinstance(said.get("error"), str):
        raise SuiteError("".join(c if c.isprintable() else " " for c in said["error"][:500]))
    if not isinstance(decisions, list) or len(decisions) != count or not all(type(d) is str for d in decisions):
        raise SuiteError("the source put something else in place of its decisions")
    return decisions


def _child() -> None:
    """What the process does: reads its order, limits itself, plays, answers."""
    import resource

    order = json.load(sys.stdin)
    limits = order["limits"]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the source prints goes nowhere
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["output_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    try:
        said: dict[str, Any] = {"decisions": _played(order)}
    except MemoryError:
        said = {"error": f"the source needs more memory than {limits['memory_bytes']:,} bytes"}
    except Exception as error:
        said = {"error": f"the source raised {type(error).__name__}: {' '.join(str(error).split())}"}
    json.dump(said, answer)
    answer.flush()
    os._exit(0)


def _played(order: dict[str, Any]) -> list[str]:
    from infermax_gym.suite.play import play_episode

    task = task_of(order["task"])
    variants = [*task.train, *task.test]
    make = _maker(order["source"])
    return [play_episode(make(), task, variants[i], seed).decisions for i, seed in order["episodes"]]


def _maker(source: str) -> Callable[[], SuiteAgent]:
    """What makes the scheduler of a source; each makes a scheduler, and nothing that serves requests by itself."""
    from infermax_gym.engine import Player, Policy

    names: dict[str, Any] = {"__name__": "scheduler"}
    exec(compile(source, "<scheduler>", "exec"), names)
    define = names.get("Scheduler")
    if not isinstance(define, type):
        raise SuiteError("it defines no class Scheduler")

    def make() -> SuiteAgent:
        made: Any = define()
        if isinstance(made, Policy | Player) or not callable(getattr(made, "decide", None)):
            raise SuiteError("its Scheduler must have decide(view), and serve nothing by itself")
        return made  # type: ignore[no-any-return]

    return make
