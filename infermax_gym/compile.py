"""The one place that says how functions are compiled.

`compiled` is numba's `njit` with a disk cache whose validity covers *every* source file that compiled code may
stand in: numba by itself looks only at the file of the outermost function, so an edit to a function it calls would
go unnoticed and a stale kernel would run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


# Parts of this package that hold compiled functions, or the constants and records that they are compiled from; each
# stands on those before it, and on none behind it.
_COMPILED_PARTS = ("compile.py", "cost", "engine", "cluster", "envs")


@cache
def _source_stamp(root: Path, last_part: str) -> tuple[float, int]:
    """Newest modification time and total size of the sources that a compiled function may stand on.

    Args:
        root: folder of the top-level package that the function belongs to.
        last_part: the compiled part of this package that it belongs to; the last one if it is another's.
    """
    here = Path(__file__).parent
    parts = _COMPILED_PARTS[: _COMPILED_PARTS.index(last_part) + 1]
    roots = [here / part for part in parts] + ([] if root == here else [root])
    sources = [path for r in roots for path in ([r] if r.suffix else r.rglob("*.py"))]
    stats = [path.stat() for path in sources]
    return max(stat.st_mtime for stat in stats), sum(stat.st_size for stat in stats)


def _package_root(function: Callable[..., Any]) -> Path:
    """The folder of the top-level package that a function belongs to."""
    depth = function.__module__.count(".")
    file = Path(function.__code__.co_filename)
    return file.parents[depth - 1] if depth > 0 else file


def _part(function: Callable[..., Any]) -> str:
    """The compiled part of this package that a function belongs to, the last one if it belongs to none."""
    names = function.__module__.split(".")
    return names[1] if len(names) > 2 and names[1] in _COMPILED_PARTS else _COMPILED_PARTS[-1]


def inlined(function: F) -> F:
    """`compiled`, and always expanded where it is called.

    For the small functions of the inner loops: a call that passes an `Engine` costs a reference count for
    each of its arrays, far more than the work of such a function.
    """
    return _compile(function, forceinline=True)


def compiled(function: F) -> F:
    """Compile `function` to machine code on its first call and keep the result on disk.

    Division by zero gives inf or nan as in NumPy, floating-point operations keep their written order (no
    fast-math), and the global interpreter lock is released while it runs.
    """
    return _compile(function, forceinline=False)


def _compile(function: F, *, forceinline: bool) -> F:
    dispatcher = numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=forceinline)(function)
    cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if cache_file is not None and hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = _source_stamp(_package_root(function), _part(function))
    return cast(F, dispatcher)
