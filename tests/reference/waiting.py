"""The waiting queue."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from infermax_gym.engine.policy import Policy, QueueOrder
from tests.reference.duration import Duration
from tests.reference.keys import queue_key, queue_value
from tests.reference.request import Request


class WaitingQueue:
    """Requests that wait, in arrival order with the preempted in front; other orders look for the smallest key."""

    def __init__(self, policy: Policy, duration: Duration, service: Mapping[int, float]) -> None:
        self.policy = policy
        self.duration = duration
        self.service = service
        self.requests: list[Request] = []

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def add(self, request: Request, in_front: bool) -> None:
        """Enter a waiting request (at the end) or a preempted request (in front of everybody)."""
        self.rekey(request)
        if in_front:
            self.requests.insert(0, request)
        else:
            self.requests.append(request)

    def rekey(self, request: Request) -> None:
        """Take the request's features as they are now."""
        request.queue_value = queue_value(self.policy, request, self.duration)

    def remove(self, request: Request) -> None:
        """Take a request out, wherever it is."""
        self.requests.remove(request)

    def head(self, clock_s: float, skipped: Collection[Request] = ()) -> Request | None:
        """The best one not skipped: FIFO the first, else the smallest key, the earlier arrival on ties."""
        candidates = (request for request in self.requests if request not in skipped)
        if self.policy.queue_order == QueueOrder.FIFO:
            return next(candidates, None)
        if self.policy.queue_order == QueueOrder.FAIR:
            return min(candidates, key=lambda r: (self.service[r.tenant], r.tenant, r.order), default=None)
        load = len(self.requests) - len(skipped)
        return min(candidates, key=lambda r: (queue_key(self.policy, r, clock_s, load), r.order), default=None)
