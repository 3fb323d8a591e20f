"""After Gate-and-Route (arXiv 2602.02987): prompts pass a gate as long as fewer run than a fluid balance allows.

Sourced: a fluid model of prefills and decodes sets target occupancies; a gate admits prompts only below the target, and
decodes run whenever they can. The paper does this for a fleet with prefill and decode slots; its routing between
engines has no meaning in one. What is left of it here, in our reading, is the balance of memory: a request of mean
prompt I and mean output O holds I + O / 2 tokens on average while it decodes, so n of them fill memory on average if

    n = `fill` x KV tokens / (I + O / 2).

That is the target. Means are those of finished requests, renewed every `interval_s`; until one has finished the gate is
open. Batches are Sarathi's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from infermax_gym.baselines.table.engines import SARATHI
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.session import Session
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class FluidGate:
    """A player that closes admission at the running requests which memory bears on average.

    Attributes:
        fill: share of the memory that the average may take.
        interval_s: simulated seconds between two looks.
        batches: the policy that it gates.
    """

    name: str = "fluid-gate"
    fill: float = 0.9
    interval_s: float = 2.0
    batches: Policy = SARATHI
    information: Information = Information.NONE
    source: str = "after Gate-and-Route (2602.02987): a gate at the fluid balance of one engine's memory; formula ours"
    note: str = "FCFS that stops admitting before memory runs out, by what requests have needed so far."

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; nothing is random."""
        session = Session(workload, engine, self.batches, record_schedule=record_schedule)
        req = session.engine.requests
        while session.run(session.clock_s + self.interval_s):
            done = session.engine.finished
            if len(done):
                mean = float((req["prompt"][done] + 0.5 * req["output"][done]).mean())
                max_num_seqs = max(1, int(self.fill * engine.num_blocks * engine.block_size / mean))
                session.install(replace(self.batches, max_running=max_num_seqs))
        return session.result()
