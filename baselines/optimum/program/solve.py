"""`ProgramSearch`: CP-SAT on the constraint program of an instance, with its bound at any time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from infermax_gym.baselines.optimum.bounds import most_iterations
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Batch, Pass, Plan, assemble
from infermax_gym.baselines.optimum.program.model import Program, ProgramTooLargeError, build, check_cost


class ProgramSearch:
    """One run of CP-SAT.

    Attributes:
        program: the constraint program, exact for the instance: its number of iterations is proven to be enough.
        bound_s: no schedule has a smaller objective, seconds.
        infeasible: proven that no schedule meets the limits.
        proven: CP-SAT has closed its search.
        done: set once `run` is over.
    """

    def __init__(
        self,
        instance: Instance,
        objective: str,
        variant: str,
        *,
        incumbent_s: float = math.inf,
        bound_s: float = 0.0,
        hint: list[dict[int, int]] | None = None,
    ) -> None:
        """Build the program.

        Args:
            instance: the problem.
            objective: "makespan" or "latency".
            variant: "preemptive", "no-preemption" or "reserve".
            incumbent_s: objective of a known schedule; only schedules at most as long matter.
            bound_s: a certified lower bound on the objective.
            hint: tokens by request of each iteration of a known schedule, to start from.

        Raises:
            ProgramTooLargeError: too many requests and iterations, or their number has no bound.
            ProgramCostError: the cost model has minima or negative coefficients.
        """
        check_cost(instance.cost)
        self.instance = instance
        upper_s = latest_finish(instance, objective, incumbent_s)
        iterations = most_iterations(instance.workload(), instance.engine(), upper_s - instance.requests[0].arrival_s)
        if not math.isfinite(iterations):
            raise ProgramTooLargeError("iterations without a constant cost: their number has no bound")
        self.program: Program = build(instance, objective, variant, max(int(iterations), 1), upper_s, bound_s)
        self.bound_s = bound_s
        self.infeasible = self.proven = False
        self.done = threading.Event()
        self._stopped = False
        self._solver: Any = None
        self._lock = threading.Lock()
        if hint is not None:
            self._hint(hint)

    def _hint(self, batches: list[dict[int, int]]) -> None:
        model, program = self.program.model, self.program
        for k, used in enumerate(program.used):
            batch = batches[k] if k < len(batches) else {}
            model.add_hint(used, int(k < len(batches)))
            for r, line in enumerate(program.slots):
                model.add_hint(line[k].tokens, batch.get(r, 0))

    def run(
        self,
        seconds: float,
        workers: int = 1,
        seed: int = 0,
        on_plan: Callable[[Plan], None] = lambda plan: None,
        on_bound: Callable[[float], None] = lambda bound_s: None,
    ) -> None:
        """Search for about `seconds` with so many threads; `stop` ends it early, from another thread.

        Args:
            seconds: time limit.
            workers: threads of CP-SAT.
            seed: of its random choices.
            on_plan: called with every schedule found.
            on_bound: called with every better bound, in seconds of the objective.
        """
        from ortools.sat.python import cp_model

        extract = self._extract

        class Watch(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
            """Hands out plans as they appear."""

            def on_solution_callback(self) -> None:
                on_plan(extract(self.value))

        def raise_bound(units: float) -> None:
            self.bound_s = max(self.bound_s, self.program.seconds(units))
            on_bound(self.bound_s)

        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(seconds, 0.01)
        solver.parameters.num_workers = workers
        solver.parameters.random_seed = seed
        solver.best_bound_callback = raise_bound
        with self._lock:
            self._solver = solver
        try:
            status = solver.solve(self.program.model, Watch()) if not self._stopped else cp_model.UNKNOWN
        finally:
            self.done.set()
        self.infeasible = status == cp_model.INFEASIBLE
        self.proven = status in (cp_model.OPTIMAL, cp_model.INFEASIBLE)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            raise_bound(solver.best_objective_bound)

    def stop(self) -> None:
        """End a run that another thread has begun, or keep one from beginning."""
        with self._lock:
            self._stopped = True
            if self._solver is not None:
                self._solver.stop_search()

    def _extract(self, value: Callable[[Any], int]) -> Plan:
        """The schedule of a solution, pushed to the left."""
        passes = []
        for k, used in enumerate(self.program.used):
            if not value(used):
                break
            batch: list[tuple[int, int]] = []
            fresh, held = set(), set()
            for r, line in enumerate(self.program.slots):
                tokens, base = value(line[k].tokens), value(line[k].base)
                if tokens > 0:
                    batch.append((r, tokens))
                    if base == 0:
                        fresh.add(r)
                elif base > 0:
                    held.add(r)
            passes.append(self._pass(tuple(batch), fresh, held))
        return assemble(self.instance, passes)

    def _pass(self, batch: Batch, fresh: set[int], held: set[int]) -> Pass:
        begin = max(self.instance.requests[r].arrival_s for r, _ in batch)
        return Pass(begin, batch, frozenset(fresh), frozenset(held))


def latest_finish(instance: Instance, objective: str, incumbent_s: float) -> float:
    """No schedule worth finding ends later than this clock, seconds.

    Args:
        instance: the problem.
        objective: "makespan" or "latency".
        incumbent_s: objective of a known schedule; infinite if there is none, then serving everybody alone, once
            the last limit on a first token is met, is as good a schedule as need be looked for.
    """
    alone = [_alone_s(instance, r) for r in range(len(instance))]
    last = instance.requests[-1].arrival_s
    if not math.isfinite(incumbent_s):
        limits = [r.arrival_s + r.ttft_limit_s for r in instance.requests if math.isfinite(r.ttft_limit_s)]
        end = max([last, *limits]) + sum(alone)
        return end if objective == "makespan" else end * len(instance)
    if objective == "makespan":
        return incumbent_s
    # The latency of all but the last to finish is no less than the shortest possible; the rest is the last one's.
    least = [_least_s(instance, r) for r in range(len(instance))]
    total = incumbent_s * len(instance)
    return max(r.arrival_s + total - (sum(least) - x) for r, x in zip(instance.requests, least, strict=True))


def _alone_s(instance: Instance, r: int) -> float:
    """Seconds of a request served without any other, chunk by chunk."""
    request, cost, budget = instance.requests[r], instance.cost, instance.max_num_batched_tokens
    prompt = request.num_prompt_tokens
    total = sum(cost.seconds([(min(budget, prompt - m), m)], []) for m in range(0, prompt, budget))
    return total + sum(cost.seconds([], [prompt + g - 1]) for g in range(1, request.num_output_tokens))


def _least_s(instance: Instance, r: int) -> float:
    """No schedule has a smaller latency of this request, seconds."""
    from infermax_gym.baselines.optimum.bounds import certify

    single = Instance(
        (instance.requests[r],), instance.kv_tokens, instance.max_num_batched_tokens, instance.max_num_seqs,
        instance.block_size, instance.cost,
    )  # fmt: skip
    return certify(single.workload(), single.engine()).mean_latency_s
