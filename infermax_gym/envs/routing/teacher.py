"""A policy of the table of routers as an agent of `InferMaxRouter-v0`."""

from __future__ import annotations

from infermax_gym.cluster import Router
from infermax_gym.cluster.kernel.run import choose_next
from infermax_gym.cluster.router import KNOBS, Score
from infermax_gym.envs.routing.episode import RoutingRun


class RouterTeacher:
    """Chooses as a policy of the table would, from what the environment's replicas tell.

    Args:
        router: the policy; it must look at all replicas, not at a random sample.

    Raises:
        ValueError: the policy draws replicas at random.
    """

    def __init__(self, router: Router) -> None:
        if router.num_choices:
            raise ValueError(f"router {router.name!r} draws replicas at random; a teacher must be deterministic")
        self.router = router

    def action(self, run: RoutingRun) -> int:
        """The replica for the next request in an episode under way."""
        if self.router.score == Score.AHEAD:
            run.fleet.state.look_ahead(run.fleet.fleet.kinds[0])
        record = run.fleet.state.record.copy()
        for name in KNOBS:
            record[name] = getattr(self.router, name)
        return int(choose_next(record))
