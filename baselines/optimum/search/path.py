"""From a path of states to a plan: which actions led from each state to the next, and for which request."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Pass, Plan, assemble
from infermax_gym.baselines.optimum.search import layout
from infermax_gym.baselines.optimum.search.automaton import Situation
from infermax_gym.baselines.optimum.search.expand import expand, fill_codes, key_of
from infermax_gym.baselines.optimum.search.tables import Problem


@dataclass(frozen=True)
class Label:
    """A state on a path: its key, when it is reached (s, nan if not known), and the objective so far (s)."""

    key: int
    clock: float
    cost: float


@dataclass(frozen=True)
class _Move:
    """One iteration: (request, situation before, tokens, whether it decodes, situation after) of each request."""

    clock: float
    parts: tuple[tuple[int, Situation | None, int, bool, Situation | None], ...]


def plan_of(problem: Problem, instance: Instance, labels: Sequence[Label], limit: float) -> Plan:
    """The plan along a path of labels, the last of which has everything finished.

    Args:
        problem: the tables the labels belong to.
        instance: the instance.
        labels: from the root on.
        limit: bound below which successors were looked at, seconds.
    """
    moves = []
    standing = list(problem.order)  # standing[k]: the request whose code is at position k
    for here, there in itertools.pairwise(labels):
        move, standing = _move(problem, here, there, standing, limit)
        moves.append(move)
    if problem.tables.backward:
        return assemble(instance, [_backward_pass(instance, m) for m in reversed(moves)])
    return assemble(instance, [_forward_pass(instance, m, m.clock if problem.tables.timed else 0.0) for m in moves])


def _move(problem: Problem, here: Label, there: Label, standing: list[int], limit: float) -> tuple[_Move, list[int]]:
    """The actions that lead from one label to the next."""
    tables, out = problem.tables, problem.successors
    n = tables.num_requests
    found = expand(*problem.records, here.key, here.clock, here.cost, np.inf)
    if found > out.key.size:
        found = expand(*problem.records, here.key, here.clock, here.cost, limit)
    distance = np.abs(out.cost_s[:found] - there.cost) + np.nan_to_num(np.abs(out.clock_s[:found] - there.clock))
    nearest = int(np.where(out.key[:found] == there.key, distance, np.inf).argmin())
    actions = tables.action[out.actions[nearest]]
    before = problem.scratch.codes
    fill_codes(tables, here.key, before)
    after = actions[:, layout.TO_CODE]
    parts = tuple(
        (
            standing[k],
            _situation(problem, k, int(before[k])),
            int(actions[k, layout.TOKENS]),
            bool(actions[k, layout.DECODES]),
            _situation(problem, k, int(after[k])),
        )
        for k in range(n)
    )
    return _Move(here.clock, parts), _sorted_like(problem, there, after, standing)


def _situation(problem: Problem, position: int, code: int) -> Situation | None:
    situations = problem.models[position].situations
    return situations[code] if code < len(situations) else None


def _sorted_like(problem: Problem, there: Label, after: NDArray[np.int64], standing: list[int]) -> list[int]:
    """Who stands where after the codes of identical requests have been sorted."""
    n = len(standing)
    same = problem.tables.same
    target = np.empty(n, np.int64)
    fill_codes(problem.tables, there.key, target)
    assert key_of(problem.tables, target) == there.key
    order = list(standing)
    begin = 0
    while begin < n:
        end = begin + 1
        while end < n and same[end]:
            end += 1
        group = sorted(range(begin, end), key=lambda k: (_base(problem, k, int(after[k])), after[k]))
        order[begin:end] = [standing[k] for k in group]
        begin = end
    bases = [_base(problem, k, int(target[k])) for k in range(n)]
    position = {r: k for k, r in enumerate(standing)}
    assert bases == [_base(problem, position[r], int(after[position[r]])) for r in order]
    return order


def _base(problem: Problem, position: int, code: int) -> int:
    return int(problem.models[position].codes[code, layout.BASE])


def _forward_pass(instance: Instance, move: _Move, not_before_s: float) -> Pass:
    """An iteration found going forward."""
    batch = tuple((r, tokens) for r, _, tokens, _, _ in move.parts if tokens > 0)
    fresh = {
        r
        for r, before, tokens, decodes, after in move.parts
        if tokens > 0 and not decodes and before is not None and _starts_anew(instance, r, before, tokens, after)
    }
    held = {r for r, _, tokens, _, after in move.parts if tokens == 0 and after is not None and after.resident > 0}
    newest = max(instance.requests[r].arrival_s for r, _ in batch)
    return Pass(max(not_before_s, newest), batch, frozenset(fresh), frozenset(held))


def _starts_anew(instance: Instance, r: int, before: Situation, tokens: int, after: Situation | None) -> bool:
    """Whether a prefill of `tokens` begins without KV: then they are all that is resident after it."""
    if after is None or after.generated > before.generated:
        return tokens == instance.requests[r].num_prompt_tokens + before.generated
    return tokens == after.resident


def _backward_pass(instance: Instance, move: _Move) -> Pass:
    """An iteration found going backward; `before` and `after` of its parts are swapped in time."""
    batch = tuple((r, tokens) for r, _, tokens, _, _ in move.parts if tokens > 0)
    fresh = {r for r, _, tokens, decodes, _ in move.parts if tokens > 0 and not decodes}
    held = {r for r, later, tokens, _, _ in move.parts if tokens == 0 and later is not None and later.resident > 0}
    return Pass(instance.requests[0].arrival_s, batch, frozenset(fresh), frozenset(held))
