"""Schedulers written as a few expressions, for programs that search one: no code of theirs is run.

    ExpressionPolicy(queue_key="known - 40 * wait", victim_key="-computed", max_running="0.5 * capacity / known_mean")

An expression is arithmetic (+ - * /, comparisons, which are 0 or 1) over the names below, numbers, and the functions
`min`, `max`, `abs`, `log1p`, `sqrt` and `where(condition, a, b)`. It is parsed with `ast`, every node is checked
against that list, and it is evaluated with numpy. What is not a number becomes 0; values are kept within 1e12.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Decision, Information, OnlineView, RequestsView
from infermax_gym.engine.batch_builder import BatchBuilder
from infermax_gym.suite.tasks import SuiteError

Floats = NDArray[np.float64]

ENGINE_NAMES = ("clock", "free", "capacity", "budget", "num_running", "num_waiting", "known_mean")
"""Seconds; KV tokens free and in all; tokens of an iteration; requests; mean known tokens of those that wait."""
REQUEST_NAMES = ("prompt", "generated", "known", "computed", "wait", "priority")
"""Of a request: prompt tokens, tokens generated, both, KV tokens that it holds, seconds since its arrival."""

MOST_NODES = 100
_MOST_TEXT = 1_000
_MOST_VALUE = 1e12

_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "abs": (1, np.abs),
    "log1p": (1, lambda x: np.log1p(np.maximum(x, 0.0))),
    "sqrt": (1, lambda x: np.sqrt(np.maximum(x, 0.0))),
    "where": (3, lambda condition, a, b: np.where(condition != 0.0, a, b)),
}


@lru_cache(maxsize=1_024)
def parsed(text: str, names: tuple[str, ...]) -> ast.expr:
    """The tree of an expression that holds nothing but what is allowed.

    Raises:
        SuiteError: it holds something else, or is too long; one line.
    """
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        raise SuiteError(f"an expression is text of at most {_MOST_TEXT} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SuiteError(
            f"expression {text!r} cannot be read; expected arithmetic such as 'known - 40 * wait'"
        ) from None
    if sum(1 for _ in ast.walk(tree)) > 4 * MOST_NODES:
        raise SuiteError(f"expression {text[:40]!r}... is too long; at most about {MOST_NODES} operations")
    _check(tree, names, text)
    return tree


def _check(node: ast.expr, names: tuple[str, ...], text: str) -> None:
    if isinstance(node, ast.Constant) and _is_number(node.value):
        return
    if isinstance(node, ast.Name) and node.id in names:
        return
    if isinstance(node, ast.Name):
        raise SuiteError(f"expression {text!r}: unknown name {node.id!r}; expected one of {', '.join(names)}")
    parts = _parts(node)
    if parts is None:
        raise SuiteError(
            f"expression {text!r}: {ast.unparse(node)!r} is not allowed; expected + - * / comparisons, numbers, "
            f"{', '.join(_FUNCTIONS)}"
        )
    for part in parts:
        _check(part, names, text)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and bool(abs(value) <= _MOST_VALUE)


def _parts(node: ast.expr) -> list[ast.expr] | None:
    """What an operation is applied to; None if it is not allowed."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [node.operand]
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
        return [node.left, node.comparators[0]]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        count, _ = _FUNCTIONS.get(node.func.id, (-1, None))
        return list(node.args) if count == len(node.args) else None
    return None


def evaluated(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """The value of a checked tree: a number, or an array like those of `values`."""
    if isinstance(node, ast.Constant):
        return np.float64(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values[node.id]
    args = [evaluated(part, values) for part in _parts(node) or ()]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](*args)
    if isinstance(node, ast.Compare):
        return _OPERATORS[type(node.ops[0])](*args) * 1.0
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return _FUNCTIONS[node.func.id][1](*args)
    return -args[0]


@dataclass(frozen=True)
class ExpressionPolicy:
    """A scheduler of three expressions.

    Everybody who runs is served in list order, prefills in chunks. Admission keeps memory for the known tokens of all
    who run, and stops at the first request that does not fit.

    Attributes:
        queue_key: of a waiting request; the smallest is admitted first.
        victim_key: of a running one; the largest is preempted when memory runs out.
        max_running: no more than so many run at once; engine names alone. One always may.
        name: for tables.

    Raises:
        SuiteError: an expression holds something that is not allowed.

    Example:
        >>> ExpressionPolicy("known", max_running="10").queue_key
        'known'
    """

    queue_key: str = "-wait"
    victim_key: str = "-wait"
    max_running: str = "1000"
    name: str = "expression"
    information: Information = field(default=Information.NONE, init=False)

    def __post_init__(self) -> None:
        for text in (self.queue_key, self.victim_key):
            parsed(text, (*REQUEST_NAMES, *ENGINE_NAMES))
        parsed(self.max_running, ENGINE_NAMES)

    def decide(self, view: OnlineView) -> Decision:
        """The next iteration."""
        with np.errstate(all="ignore"):
            return self._decide(view)

    def _decide(self, view: OnlineView) -> Decision:
        builder = BatchBuilder(view)
        victims: list[int] | None = None  # ordered when the first is needed
        for request in view.running.request.tolist():
            while not builder.serve(request):
                if victims is None:
                    victims = _ordered(self.victim_key, view.running, view)[::-1]
                builder.preempt(_victim(builder, victims))
        if builder.preempted or not len(view.waiting) or builder.tokens_left <= 0:
            return builder.decision()
        cap = max(1.0, float(_clean(evaluated(parsed(self.max_running, ENGINE_NAMES), _engine_values(view)))))
        if builder.num_running + 1 > cap:
            return builder.decision()
        room = view.num_blocks - int(_known_blocks(view, view.running).sum())
        needed = dict(zip(view.waiting.request.tolist(), _known_blocks(view, view.waiting).tolist(), strict=True))
        for request in _ordered(self.queue_key, view.waiting, view):
            room -= needed[request]
            if room < 0 or builder.num_running + 1 > cap or not builder.admit(request):
                break
        return builder.decision()


def _known_blocks(view: OnlineView, requests: RequestsView) -> NDArray[np.int64]:
    """(k,) blocks that prompts and generated tokens take once they are computed."""
    known = requests.num_prompt_tokens + requests.num_generated_tokens
    return np.asarray(-(-known // view.block_size), np.int64)


def _victim(builder: BatchBuilder, victims: list[int]) -> int:
    served = {r for r, _ in builder.decision().batch}
    return next(r for r in victims if r not in served and r not in builder.preempted)


def _ordered(key: str, requests: RequestsView, view: OnlineView) -> list[int]:
    """Request numbers, the smallest key first; equal ones as they stand."""
    if len(requests) < 2:
        return list(requests.request.tolist())
    values = {**_engine_values(view), **_request_values(requests, view)}
    keys = np.broadcast_to(_clean(evaluated(parsed(key, (*REQUEST_NAMES, *ENGINE_NAMES)), values)), len(requests))
    return list(requests.request[np.argsort(keys, kind="stable")].tolist())


def _clean(value: Any) -> Floats:
    return np.clip(np.where(np.isnan(value), 0.0, value), -_MOST_VALUE, _MOST_VALUE)


def _engine_values(view: OnlineView) -> dict[str, Any]:
    waiting = view.waiting
    known = waiting.num_prompt_tokens + waiting.num_generated_tokens
    values = {
        "clock": view.clock_s,
        "free": view.free_blocks * view.block_size,
        "capacity": view.num_blocks * view.block_size,
        "budget": view.max_num_batched_tokens,
        "num_running": len(view.running),
        "num_waiting": len(waiting),
        "known_mean": known.mean() if len(waiting) else 1.0,
    }
    return {name: np.float64(value) for name, value in values.items()}


def _request_values(requests: RequestsView, view: OnlineView) -> dict[str, Floats]:
    prompt, generated = requests.num_prompt_tokens.astype(np.float64), requests.num_generated_tokens.astype(np.float64)
    return {
        "prompt": prompt,
        "generated": generated,
        "known": prompt + generated,
        "computed": requests.num_computed_tokens.astype(np.float64),
        "wait": view.clock_s - requests.arrival_s,
        "priority": requests.priority,
    }
