"""The clock: arrivals, decisions, iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.policy import Policy
from infermax_gym.workload.workload import Workload
from tests.reference.decision import decide
from tests.reference.fairness import charge, lift_tenant
from tests.reference.fit import bucket
from tests.reference.levels import sink, start_level
from tests.reference.moving import land
from tests.reference.request import Request
from tests.reference.result import Books, Iteration, ReferenceResult, collect_result
from tests.reference.state import Decision, Engine

MOST_EMPTY_IN_A_ROW = 10_000
"""Decisions without a batch after which a run is shed; the specification sets no limit."""


def simulate_reference(
    workload: Workload, config: EngineConfig, policy: Policy, predicted: np.ndarray | None = None
) -> ReferenceResult:
    """Run a workload to its end under a policy.

    Args:
        workload: the requests.
        config: the engine.
        policy: the scheduler.
        predicted: (n,) output length predicted for each request; zeros where the policy does not ask.

    Raises:
        RuntimeError: requests wait, and the policy starts none of them; or it goes on preempting and resuming
            without ever computing anything.
    """
    return _Run(workload, config, policy, predicted).to_the_end()


class _Run:
    """One run: the engine, the requests yet to come, and the books."""

    def __init__(self, workload: Workload, config: EngineConfig, policy: Policy, predicted: np.ndarray | None) -> None:
        self.engine = Engine(workload, config, policy)
        self.requests = _requests(workload, predicted)
        self.to_come = list(self.requests)
        self.books = Books()
        self.empty_in_a_row = 0

    def to_the_end(self) -> ReferenceResult:
        """The section "Clock"."""
        engine = self.engine
        while True:
            self.take_arrivals()
            if not engine.running and not engine.queue and not self.to_come:
                break
            engine.more_to_come = bool(self.to_come)
            decision = decide(engine)
            left = engine.let_go()
            behind = self.is_behind()
            self.engine.swapped_tokens += decision.swapped_tokens
            if decision.batch:
                self.iterate(decision)
                continue
            engine.seen_until_s = engine.clock_s
            idle = not engine.running and not engine.queue
            if decision.preempted or decision.num_resumed or (left and not idle):
                self.note_empty(decision)
            elif behind:
                continue
            elif self.to_come:
                self.wait_until(self.to_come[0].arrival_s)
            else:
                raise RuntimeError("requests wait, but the policy starts none of them")
        return collect_result(self.requests, self.books, engine.N)

    def is_behind(self) -> bool:
        """Whether something has happened that decisions have not seen yet."""
        return self.engine.config.async_scheduling and self.engine.seen_until_s < self.engine.clock_s

    def note_empty(self, decision: Decision) -> None:
        """Book a decision without a batch; the next one comes at the same clock."""
        self.books.empty_decisions.append((len(self.books.schedule), _numbers(decision.preempted)))
        self.engine.iterations_without_token += 1
        self.empty_in_a_row += 1
        if self.empty_in_a_row > MOST_EMPTY_IN_A_ROW:
            raise RuntimeError("the policy preempts and resumes requests without end, and computes nothing")

    def take_arrivals(self) -> None:
        """Arrivals up to now join the queue, or are rejected if they can never fit."""
        engine = self.engine
        until_s = engine.seen_until_s if engine.config.async_scheduling else engine.clock_s
        while self.to_come and self.to_come[0].arrival_s <= until_s:
            request = self.to_come.pop(0)
            if request.lands:
                land(engine, request)
                continue
            total = request.num_prompt_tokens + request.num_output_tokens
            limit = engine.config.max_model_len
            if engine.blocks(total - 1) > engine.N or (limit is not None and total > limit):
                request.status = "rejected"
            else:
                request.waiting_since_s = request.arrival_s
                request.waiting_since_iteration = engine.num_iterations
                start_level(engine, request)
                lift_tenant(engine, request)
                engine.queue.add(request, in_front=False)

    def wait_until(self, at_s: float) -> None:
        """An idle clock goes on; transfers do too."""
        engine = self.engine
        engine.drain_swaps(max(at_s - engine.clock_s, 0.0))
        engine.clock_s = engine.seen_until_s = max(engine.clock_s, at_s)

    def with_swaps(self, compute_s: float) -> float:
        """Seconds of an iteration that computes for so long, with what it has to swap."""
        engine, lag = self.engine, self.engine.policy.swap_lag_tokens
        swapped, engine.swapped_tokens = engine.swapped_tokens, 0
        if not engine.policy.overlap_swaps:
            return compute_s + swapped / engine.config.swap_tokens_per_s if swapped else compute_s
        engine.pending_swap_tokens += swapped
        wait_s = (engine.pending_swap_tokens - lag - engine.swap_share) / engine.config.swap_tokens_per_s
        engine.drain_swaps(compute_s)
        if wait_s > compute_s or engine.pending_swap_tokens > lag:
            engine.pending_swap_tokens, engine.swap_share = lag, 0.0
        return max(compute_s, wait_s)

    def iterate(self, decision: Decision) -> None:
        """Let a batch take its time, then advance its requests."""
        engine = self.engine
        compute_s = engine.duration.of(decision.batch)
        duration_s = self.with_swaps(compute_s)
        start_s = engine.clock_s
        engine.clock_s, engine.seen_until_s = start_s + duration_s, start_s
        batch = [(request.number, tokens) for request, tokens in decision.batch.items()]
        self.books.schedule.append(Iteration(start_s, engine.clock_s, batch, _numbers(decision.preempted)))
        self.books.busy_s += duration_s
        engine.busy_s, engine.num_iterations = self.books.busy_s, len(self.books.schedule)
        sink(engine, decision.batch, compute_s)
        self.books.block_seconds += (engine.N - engine.free) * duration_s
        self.empty_in_a_row = 0
        remember(engine, decision, duration_s)
        self.books.num_guarded += engine.guard_holds
        engine.num_computed += sum(decision.batch.values())
        num_finished = len(engine.finished_outputs)
        advance(engine, decision.batch, start_s)
        engine.watch_waste(len(engine.finished_outputs) > num_finished)


def remember(engine: Engine, decision: Decision, duration_s: float) -> None:
    """What later admissions want to know about this iteration."""
    has_prefill = any(not request.is_decode for request in decision.batch)
    if has_prefill:
        engine.last_prefill_duration_s = duration_s
        engine.last_prefill_iteration = engine.num_iterations
    if decision.num_admitted > 0:
        engine.iterations_since_admission = 0
    elif not has_prefill and engine.iterations_since_admission is not None:
        engine.iterations_since_admission += 1


def advance(engine: Engine, batch: dict[Request, int], start_s: float) -> None:
    """Point 3 of "Clock", at the end of the iteration."""
    emitted = False
    for request, tokens in batch.items():
        if math.isnan(request.first_scheduled_s):
            request.first_scheduled_s = start_s
        request.resident += tokens
        if request.is_decode or request.resident == request.known:
            emit(engine, request)
            emitted = True
    for request in batch:
        engine.publish(request, request.resident)
    for request in [request for request in engine.running if request.status == "finished"]:
        engine.leave(request, keep_blocks=engine.policy.release_at_batch_end)
    engine.iterations_without_token = 0 if emitted else engine.iterations_without_token + 1


def emit(engine: Engine, request: Request) -> None:
    """One output token appears now; the last one finishes the request."""
    request.is_decode = True
    request.generated += 1
    request.last_token_s = engine.clock_s
    charge(engine, request, engine.policy.output_charge)
    refresh(engine, request)
    if request.generated == 1:
        request.first_token_s = engine.clock_s
    if request.generated == request.num_output_tokens:
        request.finish_s = engine.clock_s
        request.status = "finished"
        engine.histogram_count[bucket(request)] += 1
        engine.histogram_sum[bucket(request)] += request.num_prompt_tokens + request.num_output_tokens
        engine.finished_outputs.append(request.num_output_tokens)


def refresh(engine: Engine, request: Request) -> None:
    """The predictor looks again: its first relative error, now on what remains."""
    every = engine.policy.refresh_tokens
    if every > 0 and request.generated % every == 0:
        left = request.num_output_tokens - request.generated
        request.prediction = request.generated + left * (request.first_prediction / request.num_output_tokens)


def _numbers(requests: Sequence[Request]) -> list[int]:
    return [request.number for request in requests]


def _requests(workload: Workload, predicted: np.ndarray | None) -> list[Request]:
    """The requests of a workload as objects of plain Python numbers."""
    slo = np.where(np.isfinite(workload.ttft_slo_s), workload.ttft_slo_s, 0.0)
    columns = (
        workload.arrival_s,
        workload.num_prompt_tokens,
        workload.num_output_tokens,
        workload.priority,
        slo,
        np.zeros(len(workload)) if predicted is None else np.asarray(predicted, np.float64),
        np.where(np.isfinite(workload.tpot_slo_s), workload.tpot_slo_s, 0.0),
        workload.tenant,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Request(number, *row) for number, row in enumerate(rows)]
