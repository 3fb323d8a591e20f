"""The one place that says how functions are compiled.

`compiled` is numba's `njit` with a disk cache whose validity covers *every* compiled source file of the
package: numba by itself looks only at the file of the outermost function, so an edit to a function it calls
would go unnoticed and a stale kernel would run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


@cache
def _source_stamp() -> tuple[float, int]:
    """Newest modification time and total size of the package's sources (seconds, bytes)."""
    stats = [path.stat() for path in Path(__file__).parent.rglob("*.py")]
    return max(stat.st_mtime for stat in stats), sum(stat.st_size for stat in stats)


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
        cache_file._source_stamp = _source_stamp()
    return cast(F, dispatcher)
