"""One replica of the plain-Python fleet: the reference engine, and what it tells a router."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from infermax_gym.cluster import Replica as ReplicaConfig
from infermax_gym.workload.workload import Workload
from tests.reference.decision import decide
from tests.reference.engine import _Run
from tests.reference.request import Request


@dataclass
class Signals:
    """What a replica tells, by the names of `infermax_gym.cluster.SIGNALS`."""

    num_waiting: int = 0
    num_running: int = 0
    waiting_tokens: int = 0
    prefill_tokens: int = 0
    free_kv_tokens: int = 0
    released_tokens_per_s: float = 0.0

    def copy(self) -> Signals:
        return Signals(**vars(self))

    def count(self, request: Request) -> None:
        self.num_waiting += 1
        self.waiting_tokens += request.known
        self.prefill_tokens += request.known


class Replica:
    """An engine that requests are sent to one by one."""

    def __init__(self, workload: Workload, replica: ReplicaConfig, predicted: np.ndarray | None) -> None:
        self.run = _Run(workload, replica.config, replica.policy, predicted)
        self.requests = self.run.requests  # its own objects for all of them, by number
        self.run.to_come = []
        self.num_entered = 0
        self.next_boundary_s = math.inf
        self.signals = Signals(free_kv_tokens=self.run.engine.N * self.run.engine.b)
        engine = self.run.engine
        whole_budget = replace(self.requests[0], resident=0)
        self.prefill_tokens_per_s = engine.C / engine.duration.of({whole_budget: engine.C})
        self.capacity = engine.N * engine.b
        self.max_num_seqs = engine.B

    def can_hold(self, request: Request) -> bool:
        engine = self.run.engine
        total = request.num_prompt_tokens + request.num_output_tokens
        limit = engine.config.max_model_len
        return engine.blocks(total - 1) <= engine.N and (limit is None or total <= limit)

    def read_signals(self) -> Signals:
        engine, unjoined = self.run.engine, self.run.to_come
        waiting = [*engine.queue, *(r for r in unjoined if not r.lands)]
        prefills = [r for r in engine.running if not r.is_decode]
        waiting_tokens = sum(r.known for r in waiting)
        busy_s = self.run.books.busy_s
        return Signals(
            num_waiting=len(waiting),
            num_running=len(engine.running) + sum(r.lands for r in unjoined),
            waiting_tokens=waiting_tokens,
            prefill_tokens=waiting_tokens + sum(r.known - r.resident for r in prefills),
            free_kv_tokens=engine.free * engine.b,
            released_tokens_per_s=sum(engine.histogram_sum) / busy_s if busy_s > 0.0 else 0.0,
        )

    @property
    def has_work(self) -> bool:
        return bool(self.run.engine.running or self.run.engine.queue or self.run.to_come)

    def advance(self, until_s: float) -> None:
        """Run the iterations that start before a moment; the signals are those of the last boundary before it."""
        while self.next_boundary_s < until_s:
            self.step()

    def step(self) -> None:
        """What happens at a boundary."""
        self.signals = self.read_signals()
        goes_on = self.has_work and self.iterate()
        assert goes_on or not self.has_work or self.max_num_seqs > self.run.engine.B, "nobody can run"
        self.next_boundary_s = self.run.engine.clock_s if goes_on else math.inf

    def iterate(self) -> bool:
        """One iteration; False if nobody can run."""
        run, engine = self.run, self.run.engine
        before = len(run.books.schedule)
        while len(run.books.schedule) == before:
            run.take_arrivals()
            if not engine.running and not engine.queue:
                run.wait_until(run.to_come[0].arrival_s)
                continue
            decision = decide(engine)
            engine.swapped_tokens += decision.swapped_tokens
            if decision.batch:
                run.iterate(decision)
            elif decision.preempted or decision.num_resumed:
                run.note_empty(decision)
            elif run.to_come:
                run.wait_until(run.to_come[0].arrival_s)
            else:
                return False
        return True

    def enter(self, request: Request) -> None:
        """It comes after everybody who has come before."""
        request.order = self.num_entered
        self.num_entered += 1
        self.run.to_come.append(request)

    def send(self, number: int) -> None:
        request = self.requests[number]
        self.enter(request)
        if math.isinf(self.next_boundary_s):
            self.next_boundary_s = max(self.run.engine.clock_s, request.arrival_s)
        self.signals.count(request)
