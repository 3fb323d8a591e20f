"""`solve`: the best plan that time allows for one instance, with a certified gap.

First `plan_search` finds a good plan and `certify` a lower bound; then, where the instance is small enough, the exact
search of `search/` and the constraint program of `program/` look for a better plan and a better bound until they
meet or the time is up. Every plan is replayed by the engine, and "optimal" is claimed only where the replayed plan
meets a bound that holds for the problem itself.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

from infermax_gym.baselines.optimum.annealing.anneal import Annealer
from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.incumbent import TOLERANCE, Incumbent, Progress, Solution
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan_search import VARIANTS, ObjectiveName, Variant, search_plan
from infermax_gym.baselines.optimum.program.model import ProgramCostError, ProgramTooLargeError
from infermax_gym.baselines.optimum.program.solve import ProgramSearch
from infermax_gym.baselines.optimum.search import astar
from infermax_gym.baselines.optimum.search.alike import AlikeSearch, suits
from infermax_gym.baselines.optimum.search.exact import TOLERANCE as SEARCH_TOLERANCE
from infermax_gym.baselines.optimum.search.exact import ExactSearch, exact_options
from infermax_gym.baselines.optimum.search.tables import TooLargeError
from infermax_gym.engine import simulate

__all__ = ["TOLERANCE", "Solution", "solve"]

MOST_REQUESTS = 12
"""Instances of more requests are not tried exactly."""

_MOST_LISTED = 3_000
"""Requests up to which priority lists are annealed; beyond, a schedule of theirs takes too long."""

_LEAST_S = 0.05
_SLICE_S = 0.25


def solve(
    instance: Instance,
    objective: ObjectiveName = "makespan",
    *,
    variant: Variant = "preemptive",
    time_limit_s: float = 20.0,
    max_evaluations: int | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Solution:
    """Find a good plan and bound the optimum.

    Args:
        instance: the problem.
        objective: makespan (GPU cost) or mean latency.
        variant: "preemptive", "no-preemption", or "reserve" (I + O - 1 tokens on admission).
        time_limit_s: for everything but the compilation on the first use; the annealing takes a tenth of it where
            exact searches follow.
        max_evaluations: alternatively, so many schedules and no exact search: makes the answer reproducible.
        workers: threads. Annealing runs in each from a seed of its own; of the exact searches the best-first one
            takes one and CP-SAT the others, or with a single worker whatever time the first leaves.
        seed: of the first search.
        progress: called on every improvement of the plan or the bound, from any thread.

    Returns:
        The best that is known; `KeyboardInterrupt` ends the search early and is noted in it.

    Raises:
        ValueError: the variant is unknown, or there is no worker.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    exact = len(instance) <= MOST_REQUESTS and max_evaluations is None
    if exact:
        _compile()
    began = time.perf_counter()
    bounds = certify(instance.workload(), instance.engine())
    known = Incumbent(
        instance, objective, bounds.makespan_s if objective == "makespan" else bounds.mean_latency_s, progress
    )
    portfolio = _Portfolio(known, variant, workers, seed, began + time_limit_s)
    interrupted = False
    try:
        portfolio.anneal(time_limit_s * (0.1 if exact else 1.0), max_evaluations)
        if exact and not known.ended:
            portfolio.prove()
    except KeyboardInterrupt:
        interrupted = True
    return known.solution(time.perf_counter() - began, interrupted)


class _Portfolio:
    """The searches of one `solve`, which share an incumbent and a deadline."""

    def __init__(self, known: Incumbent, variant: Variant, workers: int, seed: int, deadline: float) -> None:
        self.known = known
        self.instance = known.instance
        self.variant: Variant = variant
        self.workers = workers
        self.seed = seed
        self.deadline = deadline
        self.from_zero = known.instance.from_zero()
        """What the exact searches solve."""

    def _value_s(self, instance: Instance, total_s: float) -> float:
        """The objective, for what a search of `instance` minimises: its last finish, or the sum of its finish times."""
        if self.known.objective == "makespan":
            return total_s + (self.instance.requests[0].arrival_s - instance.requests[0].arrival_s)
        return (total_s - sum(r.arrival_s for r in instance.requests)) / len(instance)

    def _total_s(self, instance: Instance, value_s: float) -> float:
        """The inverse of `_value_s`."""
        if self.known.objective == "makespan":
            return value_s - (self.instance.requests[0].arrival_s - instance.requests[0].arrival_s)
        return value_s * len(instance) + sum(r.arrival_s for r in instance.requests)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return max(self.deadline - time.perf_counter(), _LEAST_S)

    def anneal(self, seconds: float, max_evaluations: int | None) -> None:
        """Plans from every worker."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for done in [pool.submit(self._anneal, w, seconds, max_evaluations) for w in range(self.workers)]:
                    done.result()
            except KeyboardInterrupt:
                self.known.end()
                raise

    def _anneal(self, worker: int, seconds: float, max_evaluations: int | None) -> None:
        """One worker's plans: from policies, from priority lists, or from both in turn."""
        small = len(self.instance) <= _MOST_LISTED
        lists = small and self.variant != "reserve" and not self.instance.has_ttft_limits
        share = 1.0 if not lists or worker % 2 == 1 else 0.0 if self.workers > 1 else 0.3
        if share > 0.0:
            self._anneal_policies(worker, seconds * share, max_evaluations and max(round(max_evaluations * share), 1))
        if share < 1.0 and not self.known.ended:
            rest = None if max_evaluations is None else round(max_evaluations * (1.0 - share))
            self._anneal_lists(worker, seconds * (1.0 - share), rest)

    def _anneal_policies(self, worker: int, seconds: float, max_evaluations: int | None) -> None:
        known, workload, config = self.known, self.instance.workload(), self.instance.engine()
        best = search_plan(
            workload,
            config,
            known.objective,
            variant=self.variant,
            time_limit_s=seconds,
            max_evaluations=max_evaluations,
            stop_at_s=known.good_enough_s,
            stop=lambda: known.ended,
            seed=self.seed + worker,
        )
        if best is not None:
            lengths = workload.num_output_tokens.astype(float)
            run = simulate(best.run.workload, config, best.policy, predicted=lengths, record_schedule=True)
            known.offer_run(run, "annealed policy")

    def _anneal_lists(self, worker: int, seconds: float, max_evaluations: int | None) -> None:
        known, deadline = self.known, time.perf_counter() + seconds
        late = math.inf if max_evaluations is not None else deadline
        annealer = Annealer(
            self.instance, known.objective, self.variant, self.seed + worker, lambda: time.perf_counter() > late
        )
        rounds = 1
        while not known.ended:
            left_s = deadline - time.perf_counter()
            if max_evaluations is not None:
                rounds = min(1024, max_evaluations - annealer.num_schedules)
                if rounds <= 0:
                    break
            elif left_s <= 0.0:
                break
            began = time.perf_counter()
            annealer.advance(rounds)
            took = time.perf_counter() - began
            if max_evaluations is None:
                rounds = min(max(round(rounds * _SLICE_S / max(took, 1e-6)), 1), 4 * rounds)
        if self._value_s(self.instance, annealer.value) < known.value_s:
            known.offer_plan(annealer.plan(), "annealed priority list")

    def prove(self) -> None:
        """The exact searches, side by side or one after the other."""
        thread = threading.Thread(target=self._program, args=(self.workers - 1,))
        try:
            if self.workers > 1:
                thread.start()
            self._search()
            if self.workers == 1 and not self.known.ended and self.left_s > 2 * _LEAST_S:
                thread = threading.Thread(target=self._program, args=(1,))
                thread.start()
            while thread.is_alive() and not self.known.ended:
                thread.join(0.05)
        finally:
            self.known.end()
            if thread.is_alive():
                thread.join()

    def _search(self) -> None:
        """The exact search, in slices, until it is proven, full, or out of time."""
        known = self.known
        try:
            search = _exact_search(self.from_zero, known.objective, self.variant)
        except TooLargeError:
            return
        try:
            while search.status == astar.RUNNING and time.perf_counter() < self.deadline and not known.ended:
                if math.isfinite(known.value_s):
                    search.offer(self._total_s(self.from_zero, known.value_s) * (1.0 + 1e-12))
                search.advance(min(0.5, self.left_s))
                self._report(search)
        except KeyboardInterrupt:
            self._report(search)
            raise
        self._report(search)
        if search.status == astar.EXHAUSTED and not math.isfinite(search.incumbent):
            known.refute("exact search")

    def _report(self, search: ExactSearch | AlikeSearch) -> None:
        plan = search.plan()
        if plan is not None and self._value_s(self.from_zero, search.incumbent) < self.known.value_s:
            self.known.offer_plan(plan, "exact search")
        if math.isfinite(search.bound):
            # The search looks for no gain below its tolerance, which is one on finish times.
            least_s = search.bound * (1.0 - SEARCH_TOLERANCE)
            self.known.offer_bound(self._value_s(self.from_zero, least_s), "exact search")

    def _program(self, workers: int) -> None:
        """CP-SAT, until it is proven or out of time; nothing where its program does not hold the instance."""
        known, run = self.known, self.known.run
        hint = None if run is None or run.schedule is None else [dict(i.batch) for i in run.schedule]
        begins_s = self.instance.requests[0].arrival_s if known.objective == "makespan" else 0.0
        with suppress(ProgramTooLargeError, ProgramCostError):
            search = ProgramSearch(
                self.from_zero, known.objective, self.variant,
                incumbent_s=known.value_s - begins_s, bound_s=known.bound_s - begins_s, hint=hint,
            )  # fmt: skip
            watch = threading.Thread(target=self._stop_with, args=(search,))
            watch.start()
            search.run(
                self.left_s,
                workers,
                self.seed,
                on_plan=lambda plan: known.offer_plan(plan, "CP-SAT"),
                on_bound=lambda bound_s: known.offer_bound(bound_s + begins_s, "CP-SAT"),
            )
            if search.infeasible and known.run is None:
                known.refute("CP-SAT")
            watch.join()

    def _stop_with(self, search: ProgramSearch) -> None:
        """End CP-SAT's run as soon as nothing is left to find."""
        while not search.done.wait(0.05):
            if self.known.ended:
                search.stop()


def _exact_search(instance: Instance, objective: str, variant: str) -> ExactSearch | AlikeSearch:
    """The search that suits an instance: by layers for identical requests, else best-first.

    Raises:
        TooLargeError: the states do not fit the search.
    """
    options = exact_options(instance, objective, variant)
    if suits(instance, options):
        with suppress(TooLargeError):
            return AlikeSearch(instance, options)
    return ExactSearch(instance, options, objective == "makespan" and options.late and not options.timed)


@cache
def _compile() -> None:
    """Run the search on a trivial instance, so that compiling it (on its first use) does not count as searching."""
    tiny = Instance.of([(1, 2), (2, 1)], kv_tokens=2)
    for objective in ("makespan", "latency"):
        for backward in (False, True)[: 2 if objective == "makespan" else 1]:
            options = exact_options(tiny, objective, "preemptive")
            ExactSearch(tiny, options, backward, beam_width=1, max_bytes=1_000_000).advance(1.0)
    twins = Instance.of([(1, 2)] * 2, kv_tokens=2)
    AlikeSearch(twins, exact_options(twins, "makespan", "preemptive")).advance(1.0)
