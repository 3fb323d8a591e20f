"""Settling a lane of `InferMaxRouter-v0`: room and logs, and who routes the rest after a limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import FleetRun, Router
from infermax_gym.cluster.router import Score
from infermax_gym.envs.fallback import charge
from infermax_gym.envs.rewards import NUM_COMPONENTS
from infermax_gym.envs.routing.episode import RoutingRun
from infermax_gym.envs.routing.step import LANE, start_all, totals_now
from infermax_gym.envs.routing.teacher import RouterTeacher
from infermax_gym.envs.status import LOG_FULL, RUNNING_ON, TRUNCATED

FALLBACK_ROUTER = Router("sal", score=Score.START_DELAY)
"""The replica where a request could start soonest: the table's `sal`, which needs neither prefixes nor predictions."""


def settle(run: RoutingRun) -> bool:
    """Bring a lane to its next decision or its end; after a limit the fallback router has all that is to come.

    Returns:
        Whether it has got it just now.
    """
    was_over = bool(run.lane["handed_over"][0])
    teacher = RouterTeacher(FALLBACK_ROUTER)
    record, lane = run.fleet.state.record, run.lane
    while True:
        status = lane["status"][0]
        if status == LOG_FULL:
            if record["chosen"][0] >= 0:
                run.fleet.state.make_room(int(record["chosen"][0]))
            else:
                run.fleet.empty_log()
        elif status == TRUNCATED and not lane["handed_over"][0]:
            lane["handed_over"] = 1
            lane["num_by_agent"] = run.fleet.next_request
        elif status == RUNNING_ON and lane["handed_over"][0]:
            lane["action"] = teacher.action(run)
        else:
            return bool(lane["handed_over"][0]) and not was_over
        start_all(record, lane)


def charge_of(run: RoutingRun, weights: NDArray[np.float64]) -> float:
    """What an episode that was handed over is charged in its last reward, see `infermax_gym.envs.fallback`."""
    fleet = FleetRun(run.workload, run.fleet.fleet, None)
    fleet.state.lay_out(np.zeros((len(run.workload), 0)), run.predicted)
    lane = np.zeros(1, LANE)
    lane["action"] = -1
    lane["handed_over"] = 1
    by_rule = RoutingRun(fleet, lane, run.predicted)
    start_all(fleet.state.record, lane)
    settle(by_rule)
    return charge(weights, _totals(run), _totals(by_rule))


def _totals(run: RoutingRun) -> NDArray[np.float64]:
    totals = np.zeros(NUM_COMPONENTS)
    totals_now(run.fleet.state.record, run.lane, totals)
    return totals


def routed_by(run: RoutingRun) -> tuple[int, int]:
    """How many requests the agent has routed, those that fit nowhere included, and how many the fallback router."""
    routed = int(run.fleet.next_request)
    by_agent = int(run.lane["num_by_agent"][0]) if run.lane["handed_over"][0] else routed
    return by_agent, routed - by_agent
