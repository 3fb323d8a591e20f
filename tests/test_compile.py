"""Compiled code is never older than the sources that it stands on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from infermax_gym import compile as compile_module
from infermax_gym.agents.controller_kernel import control
from infermax_gym.baselines.optimum.search.expand import expand
from infermax_gym.compile import sources_of
from infermax_gym.engine.kernel.run import run

LIBRARY = Path(compile_module.__file__).resolve().parent


def names(function: object) -> list[str]:
    return [path.name for path in sources_of(function.py_func)]  # type: ignore[attr-defined]


def test_a_part_of_the_engine_stands_on_those_before_it() -> None:
    assert names(run) == ["compile.py", "cost", "engine"]


def test_agents_and_baselines_stand_on_everything_and_themselves() -> None:
    everything = ["compile.py", "cost", "engine", "cluster", "envs"]
    assert names(control) == [*everything, "agents"]
    assert names(expand) == [*everything, "baselines"]
    for function in (control, expand):
        assert all(path.exists() for path in sources_of(function.py_func))


def test_another_package_stands_on_its_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "theirs" / "deep"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").write_text("")
    (inner / "code.py").write_text("def function(x):\n    return x\n")
    (tmp_path / "alone.py").write_text("def function(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import alone  # type: ignore[import-not-found]
    from theirs.deep import code  # type: ignore[import-not-found]

    assert sources_of(code.function)[-1] == inner.parent
    assert sources_of(alone.function)[-1] == tmp_path / "alone.py"
    for name in ("alone", "theirs", "theirs.deep", "theirs.deep.code"):
        sys.modules.pop(name)


def test_the_stamp_is_of_what_is_written(tmp_path: Path) -> None:
    """An edit or another name moves it; a copy made later does not."""
    stamp = compile_module._source_stamp.__wrapped__
    file = tmp_path / "deep" / "kernel.py"
    file.parent.mkdir()
    file.write_text("a = 1\n")
    before = stamp((tmp_path,))
    os.utime(file, (1e9, 1e9))
    assert stamp((tmp_path,)) == before
    file.write_text("a = 2\n")
    edited = stamp((tmp_path,))
    file.rename(file.with_name("other.py"))
    assert len({before, edited, stamp((tmp_path,))}) == 3


def test_without_numbas_private_hook_nothing_is_compiled() -> None:
    """Better no start than machine code of yesterday's sources."""
    for cache in (SimpleNamespace(), SimpleNamespace(_cache_file=SimpleNamespace())):
        with pytest.raises(RuntimeError, match=r"has no _cache_file\._source_stamp"):
            compile_module._stamp(cache, run.py_func)


def test_the_hook_is_used() -> None:
    stamp = control._cache._cache_file._source_stamp
    assert stamp == compile_module._source_stamp(sources_of(control.py_func))


def add_one(x: int) -> int:
    return x + 1


def test_nowhere_to_keep_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that says what to set, and the same results."""
    from numba.core import caching

    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    compile_module._say_not_kept.cache_clear()
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR"):
        function = compile_module.compiled(add_one)
    assert function(1) == 2
    compile_module._say_not_kept.cache_clear()


def test_a_full_disk_does_not_end_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "save_overload", full)
    compile_module._say_not_kept.cache_clear()
    function = compile_module.compiled(add_one)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        assert function(2.5) == 3.5  # type: ignore[arg-type]
    compile_module._say_not_kept.cache_clear()
