"""The section "Closed-loop traffic": requests that are sent when others have ended."""

from __future__ import annotations

from collections.abc import Sequence

from infermax_gym.workload.workload import ANYBODY, NOBODY, Workload
from tests.reference.request import Request


class Loop:
    """Who is sent next, and when.

    Attributes:
        to_come: requests whose arrival is known and not over, the first to arrive in front.
        shared: requests that anybody may send, in order.
    """

    def __init__(self, workload: Workload, requests: Sequence[Request]) -> None:
        after = workload.after.tolist()
        self.think_s = workload.think_s.tolist()
        self.to_come = [request for request in requests if after[request.number] == NOBODY]
        self.shared = [request for request in requests if after[request.number] == ANYBODY]
        self.behind: dict[int, list[Request]] = {}
        for request in requests:
            if after[request.number] >= 0:
                self.behind.setdefault(after[request.number], []).append(request)

    def end(self, number: int, at_s: float) -> None:
        """A request has ended, finished or refused."""
        released = self.behind.get(number, [])
        if not released and self.shared:
            released = [self.shared.pop(0)]
        for request in released:
            request.arrival_s = request.level_place_s = at_s + self.think_s[request.number]
            self.to_come.append(request)
            self.to_come.sort(key=lambda r: (r.arrival_s, r.number))
