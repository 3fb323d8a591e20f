"""What the source of a scheduler may hold: what deciding needs, and no way around the view.

A program that writes schedulers finds the shortest way to a score. It could draw the episodes itself, whose seeds are
public, and look the output lengths up; read files or the clock; or dig in the frames of the engine that calls it. So
imports are limited to a list of modules, and names that lead out of them are refused. This is a fence, not a wall.
"""

from __future__ import annotations

import ast

from infermax_gym.suite.tasks import SuiteError

MODULES = (
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "infermax_gym.engine",
    "infermax_gym.engine.batch_builder",
    "itertools",
    "math",
    "numpy",
    "operator",
    "random",
    "statistics",
    "typing",
)
"""Modules that a source may import from, unless `Limits` names others."""

_NAMES = {
    *("__builtins__", "__import__", "__loader__", "__spec__", "breakpoint", "compile", "delattr", "eval", "exec"),
    *("getattr", "globals", "input", "locals", "memoryview", "open", "setattr", "vars"),
}
_ATTRIBUTES = {
    *("attrgetter", "builtins", "importlib", "lib", "methodcaller", "os", "sys", "testing"),  # ways to other modules
    *("cr_frame", "f_back", "f_builtins", "f_globals", "f_locals", "gi_frame", "tb_frame"),  # to whoever calls
    *("ctypeslib", "DataSource", "fromfile", "genfromtxt", "load", "loadtxt", "memmap"),  # to files and memory
    *("save", "savetxt", "savez", "savez_compressed", "tofile"),
}


def check_source(source: str, modules: tuple[str, ...] = MODULES) -> None:
    """Whether a source stays within what deciding needs.

    Args:
        source: Python.
        modules: those that it may import from.

    Raises:
        SuiteError: it cannot be read, or line so-and-so leaves the fence; one line.
    """
    try:
        tree = ast.parse(source)
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SuiteError(f"the source cannot be read: {' '.join(str(error).split())}") from None
    for node in nodes:
        found = _wrong(node, modules)
        if found is not None:
            raise SuiteError(
                f"the source uses {found} in line {getattr(node, 'lineno', 0)}; it may decide, and import "
                f"from {', '.join(modules)}"
            )


def _wrong(node: ast.AST, modules: tuple[str, ...]) -> str | None:
    """What is wrong with a node; None if nothing is."""
    if isinstance(node, ast.Import):
        return next((a.name for a in node.names if a.name not in modules or a.name.startswith("infermax_gym")), None)
    if isinstance(node, ast.ImportFrom):
        if node.level or node.module not in modules:
            return node.module or "a relative import"
        return next((a.name for a in node.names if _leads_out(a.name) or a.name == "*"), None)
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return node.id
    if isinstance(node, ast.Attribute):
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and not node.attr.startswith("__")
        return node.attr if _leads_out(node.attr) and not own else None
    return None


def _leads_out(name: str) -> bool:
    return (name.startswith("_") and name != "__init__") or name in _ATTRIBUTES
