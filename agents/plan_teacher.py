"""A plan of the optimum as a teacher: what it does, as actions of `InferMax-v0`, for imitation.

The environment runs everybody who is admitted, so a plan can be played if it never holds a resident request and cuts
a prefill only where the token budget ends: plans of `infermax_gym.baselines.optimum.annealing` are so, those of the
exact search often
hold.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from infermax_gym.agents.imitation import Demonstrations
from infermax_gym.baselines.optimum.plan import Plan
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import Kind


class NotPlayableError(ValueError):
    """The environment has no actions for what a plan does; the message says where."""


class PlanTeacher:
    """Plays a plan in an episode that serves the plan's own requests, decided before every iteration.

    Args:
        plan: the schedule.
    """

    def __init__(self, plan: Plan) -> None:
        self._steps = deque(plan.steps)
        self._turn: deque[tuple[Kind, int]] = deque()

    def action(self, env: InferMaxEnv) -> int:
        """The next action.

        Raises:
            NotPlayableError: the plan is over, holds a resident request, or names one that has no slot.
        """
        if not self._turn:
            self._begin_turn(env)
        kind, request = self._turn.popleft()
        layout, lane, engine = env.layout, env.run.lane, env.run.engine
        if kind == Kind.RUN:
            return layout.num_chunk_budgets - 1
        shown = lane.slots[: layout.num_waiting_slots]
        if kind == Kind.PREEMPT:
            positions = lane.slots[layout.num_waiting_slots :]
            shown = np.where(positions >= 0, engine.arrays["run"][positions], -1)
        found = np.flatnonzero(shown == request)
        if found.size == 0:
            raise NotPlayableError(f"{kind.name} of request {request} has no slot; use more slots")
        return layout.encode(kind, int(found[0]))

    def _begin_turn(self, env: InferMaxEnv) -> None:
        if not self._steps:
            raise NotPlayableError("the plan is over, the episode is not")
        engine = env.run.engine
        running = engine.arrays["run"][: int(engine.record["num_running"][0])].tolist()
        step = self._steps.popleft()
        batch = [r for r, _ in step.batch]
        stay = [r for r in running if r not in step.preempted]
        held = set(stay) - set(batch)
        if held:
            raise NotPlayableError(f"request {min(held)} is held at {env.run.engine.record['clock_s'][0]:.6g} s")
        self._turn.extend((Kind.PREEMPT, r) for r in step.preempted)
        self._turn.extend((Kind.ADMIT, r) for r in batch if r not in stay)
        self._turn.append((Kind.RUN, 0))


def demonstrate_plan(plan: Plan, env: InferMaxEnv) -> Demonstrations:
    """What a plan does in an episode, observation by observation.

    Args:
        plan: the schedule.
        env: a flat environment (`InferMaxEnv(config, flat=True)`) that serves the plan's requests, with
            `decide="iteration"`.

    Raises:
        NotPlayableError: see `PlanTeacher`.
    """
    teacher = PlanTeacher(plan)
    observation, _ = env.reset(seed=0)
    seen = []
    done = False
    while not done:
        mask, action = env.action_masks(), teacher.action(env)
        seen.append((observation, mask, action))
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    observations, masks, actions = zip(*seen, strict=True)
    return Demonstrations(np.array(observations, np.float32), np.array(masks), np.array(actions, np.int64))
