"""A policy of the table as an agent: what it would do, as actions of the environment.

At the beginning of a turn the policy decides on a copy of the engine; the difference, whom it preempts, whom it admits,
then RUN, is played action by action: at full budget, or, where the policy's own is smaller, at the chunk budget
next to what its decodes leave of it. With the policy as the environment's `base` (so that queue and list
have its order) the schedule is the kernel's own.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Policy
from infermax_gym.engine.kernel.decide import decide
from infermax_gym.engine.layout import RUNNING
from infermax_gym.engine.session import install_policy
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.episode import Run
from infermax_gym.envs.scheduling.layout import ActionLayout, Kind


class PolicyTeacher:
    """Plays a policy of the table in `InferMax-v0`.

    Policies whose decisions the environment can express: decodes before prefills or one list (with decodes first in
    it), hybrid, chunked, full prefill share.

    Args:
        policy: the policy.
        layout: the environment's layout.
    """

    def __init__(self, policy: Policy, layout: ActionLayout) -> None:
        self.policy = policy
        self.layout = layout
        self._plan: deque[tuple[Kind, int]] = deque()  # with the request, or for RUN the level

    def reset(self) -> None:
        """Forget the plan of the turn; call it when an episode begins or a state is set."""
        self._plan.clear()

    def action(self, env: InferMaxEnv) -> int:
        """The next action in `env`, a legal one."""
        return self.action_in(env.run)

    def action_in(self, run: Run) -> int:
        """The next action in an episode under way.

        Raises:
            LookupError: the policy's choice has no slot; use more slots.
        """
        if not self._plan:
            self._make_plan(run)
        kind, request = self._plan.popleft()
        if kind == Kind.RUN:
            return request
        slots = run.lane.slots
        waits = self.layout.num_waiting_slots
        if kind == Kind.ADMIT:
            shown = slots[:waits]
        else:
            positions = slots[waits:]
            shown = np.where(positions >= 0, run.engine.arrays["run"][positions], -1)
        found = np.flatnonzero(shown == request)
        if found.size == 0:
            raise LookupError(f"{kind.name} of request {request} has no slot; use more slots")
        return self.layout.encode(kind, int(found[0]))

    def _make_plan(self, run: Run) -> None:
        engine = run.engine.copy()
        whole_budget = int(engine.core["token_budget"])
        install_policy(engine, self.policy)
        before = _running(engine)
        decide(engine.core)
        if engine.record["num_tokens"][0] == 0 and engine.record["changed"][0]:
            decide(engine.core)  # an empty decision is followed by another at the same clock
        count = int(engine.arrays["preempted"][0])
        preempted = engine.arrays["preempted"][1 : count + 1].tolist()
        after = _running(engine)
        self._plan.extend((Kind.PREEMPT, r) for r in preempted)
        gone = set(before) - set(preempted)
        self._plan.extend((Kind.ADMIT, r) for r in after if r not in gone)
        left = int(engine.core["token_budget"]) - sum(not engine.requests["in_prefill"][r] for r in after)
        whole = engine.core["token_budget"] >= whole_budget
        self._plan.append((Kind.RUN, self.layout.num_chunk_budgets - 1 if whole else _level(run.lane.levels, left)))


def _level(budgets: NDArray[np.int64], num_tokens: int) -> int:
    """The largest chunk budget that is no more than `num_tokens`, or the smallest of all."""
    return max(int(np.searchsorted(budgets, num_tokens, side="right")) - 1, 0)


def _running(engine: Any) -> list[int]:
    count = int(engine.record["num_running"][0])
    order: list[int] = engine.arrays["run"][:count].tolist()
    assert all(engine.requests["place"][order] == RUNNING)
    return order
