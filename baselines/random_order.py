"""Waiting requests in random order: the feasible scheduler without an idea, a floor for all others."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infermax_gym.baselines.table.engines import SARATHI
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.policy import QueueOrder, queue_weights
from infermax_gym.engine.session import Session
from infermax_gym.streams import stream
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class RandomOrder:
    """A player that draws a place in the queue for everybody.

    Attributes:
        batches: the policy whose batches and memory it uses.
    """

    name: str = "random-order"
    batches: Policy = SARATHI
    information: Information = Information.NONE
    source: str = "random feasible: Sarathi's batches and memory, the waiting queue in an order drawn by lot"
    note: str = "What an order is worth: whoever loses to this one chooses worse than chance."

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; places are drawn from the stream `policy` of the seed."""
        row = replace(
            self.batches, name=self.name, queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(priority=1.0)
        )
        session = Session(workload, engine, row, record_schedule=record_schedule)
        session.engine.requests_to_come["priority"] = stream(seed, "policy").permutation(len(workload))
        session.run()
        return session.result()
