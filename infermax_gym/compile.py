"""The one place that says how functions are compiled.

`compiled` is numba's `njit` with a disk cache whose validity covers *every* source file that compiled code may
stand in: numba by itself looks only at the file of the outermost function, so an edit to a function it calls would
go unnoticed and a stale kernel would run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


# Parts of this package that hold compiled functions, or the constants and records that they are compiled from; each
# stands on those before it, and on none behind it.
_COMPILED_PARTS = ("compile.py", "cost", "engine", "cluster", "envs")
_HERE = Path(__file__).resolve().parent
_ADDITIONS = tuple((_HERE / name).resolve() for name in ("agents", "baselines"))


def sources_of(function: Callable[..., Any]) -> tuple[Path, ...]:
    """Files and folders whose sources a compiled function may stand on.

    A function of a compiled part of this package stands on that part and those before it; any other function stands
    on all of them and on the top-level package, or the lone file, that it is written in. Where that is, says the file
    of the function: module names need not follow folders (agents/ and baselines/ are imported as parts of this
    package).
    """
    file = Path(function.__code__.co_filename).resolve()
    if file.is_relative_to(_HERE):
        part = file.relative_to(_HERE).parts[0]
        if part in _COMPILED_PARTS:
            return tuple(_HERE / name for name in _COMPILED_PARTS[: _COMPILED_PARTS.index(part) + 1])
    own = next((root for root in _ADDITIONS if file.is_relative_to(root)), file)
    while own not in _ADDITIONS and (own.parent / "__init__.py").is_file():
        own = own.parent
    return (*(_HERE / name for name in _COMPILED_PARTS), own)


@cache
def _source_stamp(roots: tuple[Path, ...]) -> str:
    """Digest of the sources below some files and folders: a copy, a checkout or an install keeps what was compiled."""
    digest = sha256()
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix().encode()
            digest.update(name + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


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
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy", "forceinline": forceinline}
    try:
        dispatcher = numba.njit(cache=True, **how)(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        _say_not_kept("no folder for it can be written")
        return cast(F, numba.njit(**how)(function))
    if not numba.config.DISABLE_JIT:
        _stamp(dispatcher._cache, function)
        dispatcher._cache.save_overload = _kept_if_possible(dispatcher._cache.save_overload)
    return cast(F, dispatcher)


def _kept_if_possible(save: Callable[..., None]) -> Callable[..., None]:
    """Saving that a full disk does not turn into the end of a simulation."""

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except OSError as error:
            _say_not_kept(error.strerror or str(error))

    return save_overload


@cache
def _say_not_kept(reason: str) -> None:
    warnings.warn(
        f"compiled code cannot be kept ({reason}), so every process compiles anew, for minutes; set NUMBA_CACHE_DIR "
        "to a folder that only you can write",
        RuntimeWarning,
        stacklevel=4,
    )


def _stamp(disk_cache: Any, function: Callable[..., Any]) -> None:
    """Make a function's cache on disk valid for all the sources that it stands on.

    Raises:
        RuntimeError: this numba keeps its stamps elsewhere; going on would run stale machine code after an edit.
    """
    cache_file = getattr(disk_cache, "_cache_file", None)
    if cache_file is None or not hasattr(cache_file, "_source_stamp"):
        raise RuntimeError(
            f"numba {numba.__version__} has no _cache_file._source_stamp, which infermax_gym.compile sets so that "
            "edits recompile; install a numba that has it (0.60 to 0.68 do) or set NUMBA_DISABLE_JIT=1"
        )
    cache_file._source_stamp = _source_stamp(sources_of(function))
