"""A policy at work beside vLLM's scheduler: what it remembers, and what it says when it is asked.

One call of the scheduler: `begin` puts the running list in order and says how many tokens the call may spend; for each
waiting request `admit` says what it reserves, or None; where a running request lacks a block, `victim` says who goes;
`end` takes note of the batch. The rest are events: requests that arrive, are preempted, get tokens and finish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from infermax_gym.engine.policy import NO_LIMIT, Policy, QueueOrder
from infermax_gym.vllm.admission import Admission, Candidate, Limits
from infermax_gym.vllm.columns import NUMBER, describe
from infermax_gym.vllm.guard import Guard
from infermax_gym.vllm.history import History
from infermax_gym.vllm.keys import Weights, queue_keys, queue_score, set_queue_key
from infermax_gym.vllm.order import Memory, RunningList
from infermax_gym.vllm.queue import PolicyQueue
from infermax_gym.vllm.requests import Seen, seen

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel

_FCFS_S = 60.0
"""How long after a fault requests are served first come, first served."""


class Steering(Protocol):
    """What sets a policy's knobs, or the policy, while it runs."""

    def arrived(self, entry: Seen) -> None:
        """A request has arrived; its queue key comes next."""

    def finished(self, entry: Seen, clock_s: float) -> None:
        """A request has emitted its last token."""

    def set_if_due(self, decisions: Decisions) -> None:
        """Before an iteration is decided."""

    def left_alone(self, decisions: Decisions) -> None:
        """After an iteration that left nobody."""


class Decisions:
    """A policy's decisions over the requests of one scheduler.

    Args:
        policy: one that vLLM can follow.
        limits: the replica.
        memory: the KV cache.
        clock: seconds now, on vLLM's clock.
        origin_s: where the policy's clock begins, on vLLM's.
        cost: what iterations cost, for policies whose keys weigh `prefill_s` and for controllers.
        steering: sets knobs or changes the policy, or None.
        on_fault: is told of every fault. A fault makes it decide first come, first served for a minute.
    """

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        memory: Memory,
        clock: Callable[[], float],
        origin_s: float,
        cost: CostModel | None = None,
        steering: Steering | None = None,
        on_fault: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.limits, self.memory, self.cost = limits, memory, cost
        self._clock, self._origin_s = clock, origin_s
        self._steering, self._on_fault = steering, on_fault
        self._fcfs_until_s: float | None = None
        self.entries: dict[str, Seen] = {}
        self.num_arrived = 0
        self.history = History(limits.max_output_tokens, policy.history_quantile)
        self.admission = Admission(policy, limits, self.history)
        self.running = RunningList(policy, lambda entry: queue_score(entry, self.queue_weights, cost))
        self._guard = Guard(limits.num_blocks * limits.block_size, limits.token_budget)
        self.queue = PolicyQueue(self.entry_of, self._enter, None, lambda entry: describe(entry, self._prefill_cost))
        self._prefill_cost = cost if policy.queue_weights[9] != 0.0 or steering is not None else None
        self.max_running = 0
        self._follow(policy)
        self.call = 0
        self.clock_s = 0.0
        self.num_preemptions = 0
        self.num_finished = 0
        self._front_key = 0.0
        self._num_ending = 0
        self._known_before = 0
        self._with_tokens_to_come: list[Seen] = []

    def _follow(self, policy: Policy) -> None:
        """Take over all that a policy says."""
        limits = self.limits
        self.policy = policy
        self.queue_weights: Weights = policy.queue_weights
        self.prefill_share = policy.prefill_share
        self.max_running = min(policy.max_running or limits.max_num_seqs, limits.max_num_seqs)
        if self._steering is not None:
            self.max_running = min(self.max_running, limits.num_blocks)
        self.token_budget = min(policy.max_num_batched_tokens or limits.token_budget, limits.token_budget)
        self._chunk_limit = policy.max_chunk if policy.max_chunk < self.token_budget else 0
        self.max_chunk = self._chunk_limit  # what vLLM is told; 0: no limit
        self.admission.install(policy)
        self.running.install(policy)
        self._guard.install(min(self.token_budget, policy.max_chunk))
        moves = policy.queue_order in (QueueOrder.RESPONSE_RATIO, QueueOrder.LOAD_ADAPTIVE)
        self._moving = self._position if moves else None
        self.queue.replace_position(self._moving)

    def install(self, policy: Policy) -> None:
        """Put another policy in the place of this one: `infermax_gym.engine.session.install_policy` here.

        A queue that is and stays FIFO keeps its order; any other is sorted anew.
        """
        stays = self.policy.queue_order == policy.queue_order == QueueOrder.FIFO
        self._follow(policy)
        if not stays:
            self.set_keys_anew()

    # -- a call of the scheduler -----------------------------------------------------------------------------------

    def begin(self, running: Sequence[Any]) -> tuple[list[Seen], int]:
        """The running requests in the order in which to serve them, and the token budget of this call.

        Args:
            running: vLLM's list.
        """
        self.call += 1
        for entry in self._with_tokens_to_come:  # which are there by now
            entry.num_to_come = 0
        self._with_tokens_to_come.clear()
        self.clock_s = self._clock() - self._origin_s
        going_on = self._going_on(running)
        self._num_ending = len(running) - len(going_on)
        self.running.adopt(going_on)
        if self._fcfs_until_s is not None and self.clock_s >= self._fcfs_until_s:
            self._return_from_fcfs()
        if self._fcfs_until_s is None:
            try:
                return self._begin()
            except Exception as error:
                self.fault(error)
        return list(self.running.entries), self.token_budget

    def _going_on(self, running: Sequence[Any]) -> list[Seen]:
        """All but those whose last token is under way, with asynchronous scheduling: they keep a place and blocks."""
        going_on = []
        for request in running:
            entry = self.entry_of(request)
            if request.num_output_placeholders > 0 and entry.generated >= request.max_tokens:
                self.running.leave(entry)
            else:
                going_on.append(entry)
        return going_on

    def _begin(self) -> tuple[list[Seen], int]:
        self.queue.moved()
        if self._steering is not None:
            self._steering.set_if_due(self)
        self._guard.look()
        served_in = self.running.sort(self._guard.holds)
        return served_in, self._budget()

    def admit(self, candidate: Candidate) -> int | None:
        """Tokens that a waiting request gets blocks for if it joins now, or None: it does not, nor anybody after it."""
        if self._fcfs_until_s is None:
            try:
                return self._admit(candidate)
            except Exception as error:
                self.fault(error)
        return candidate.found_tokens + candidate.num_new_tokens

    def _admit(self, candidate: Candidate) -> int | None:
        running = self.running.entries
        if len(running) + self._num_ending >= self.max_running or (running and self._guard.holds):
            return None
        most = self.policy.max_prefills
        if most < NO_LIMIT and sum(entry.in_prefill for entry in running) >= most:
            return None
        tokens = self.admission.reserved_tokens(candidate)
        return tokens if self.admission.fits(candidate, tokens, self.memory.free_blocks, running) else None

    def admitted(self, candidate: Candidate) -> None:
        """A waiting request has joined."""
        entry = candidate.entry
        entry.known_at_admission = entry.known
        entry.granted_in = self.call
        self._guard.found(min(entry.lost, candidate.found_tokens), candidate.found_tokens)
        entry.lost = 0
        self.running.join(entry)

    def granted(self, entry: Seen) -> None:
        """A running request has got tokens."""
        entry.granted_in = self.call

    def victim(self, entry: Seen) -> Seen | None:
        """Who makes room for a running request; None: the last of vLLM's list."""
        if self._fcfs_until_s is None:
            try:
                return self.running.pick_victim(entry, self.call, self._guard.holds)
            except Exception as error:
                self.fault(error)
        return None

    def end(self, batch: Sequence[tuple[Seen, int]]) -> None:
        """The call is over; `batch` has each member and its tokens, in order."""
        self.running.relist([entry for entry, _ in batch], self._guard.holds)
        emitted = any(entry.computed >= entry.known or not entry.in_prefill for entry, _ in batch)
        self._guard.ran(sum(tokens for _, tokens in batch), emitted)

    # -- events ------------------------------------------------------------------------------------------------------

    def entry_of(self, request: Any) -> Seen:
        """What is remembered of a request; made when it is met first."""
        entry = self.entries.get(request.request_id)
        if entry is None:
            entry = seen(request, self.num_arrived, self._origin_s)
            self.num_arrived += 1
            self.entries[request.request_id] = entry
            if self._steering is not None and self._fcfs_until_s is None:
                self._steering.arrived(entry)
        return entry

    def preempting(self, request: Any) -> None:
        """A running request is about to lose its blocks."""
        entry = self.entry_of(request)
        self.num_preemptions += 1
        self._known_before = entry.known
        entry.lost = entry.computed
        self._guard.lost(entry.computed)
        self.running.leave(entry)
        entry.known_at_admission = -1

    def left(self, request: Any, finished: bool) -> None:
        """A request has finished, or has been aborted."""
        entry = self.entries.pop(request.request_id, None)
        if entry is None:
            return
        if not entry.waits:
            self.running.leave(entry)
        if finished:
            self.num_finished += 1
            if math.isnan(entry.first_token_s):
                entry.first_token_s = self._clock() - self._origin_s
            if self._steering is not None:
                self._steering.finished(entry, self._clock() - self._origin_s)
            self._guard.finished()
            self.history.learn(entry.prompt, request.num_output_tokens)

    def emitted(self, names: Iterable[str]) -> None:
        """Some requests may have got tokens; with nobody left, what steers looks at the empty server."""
        now_s = self._clock() - self._origin_s
        for name in names:
            entry = self.entries.get(name)
            if entry is not None and math.isnan(entry.first_token_s) and entry.request.num_output_tokens > 0:
                entry.first_token_s = now_s
        if self._steering is None or self.entries or self._fcfs_until_s is not None:
            return
        self.clock_s = now_s
        try:
            self._steering.left_alone(self)
        except Exception as error:
            self.fault(error)

    # -- faults ------------------------------------------------------------------------------------------------------

    def fault(self, error: Exception) -> None:
        """The policy has failed: first come, first served for a while."""
        self._fcfs_until_s = self.clock_s + _FCFS_S
        self.queue.replace_position(None)
        self.queue.set_keys(self.queue.table[NUMBER])
        self._on_fault(error)

    def _return_from_fcfs(self) -> None:
        """Try the policy again."""
        self._fcfs_until_s = None
        try:
            self.queue.replace_position(self._moving)
            self.set_keys_anew()
        except Exception as error:
            self.fault(error)

    # -- keys --------------------------------------------------------------------------------------------------------

    def set_keys_anew(self) -> None:
        """Give every waiting request its key, after what it weighs has changed.

        Raises:
            FloatingPointError: a key is no number; keys are as they were.
        """
        self.queue.set_keys(*queue_keys(self.queue.table, self.policy.queue_order, self.queue_weights))

    def _enter(self, entry: Seen, preempted: bool) -> None:
        if preempted and self._known_before > entry.known:
            entry.num_to_come = self._known_before - entry.known
            self._with_tokens_to_come.append(entry)
        if self._fcfs_until_s is not None:
            _by_arrival(entry)
            return
        try:
            self._checked_key(entry)
            if preempted and self.policy.queue_order == QueueOrder.FIFO:
                self._front_key -= 1.0
                entry.key = self._front_key
        except Exception as error:
            _by_arrival(entry)
            self.fault(error)

    def _checked_key(self, entry: Seen) -> None:
        set_queue_key(entry, self.policy.queue_order, self.queue_weights, self.cost)
        if not (math.isfinite(entry.key) and math.isfinite(entry.slope)):
            raise FloatingPointError(f"the queue key of request {entry.request.request_id} is {entry.key}")

    def _position(self, num_waiting: int) -> float:
        if self.policy.queue_order == QueueOrder.LOAD_ADAPTIVE:
            return self.policy.load_aging * num_waiting
        return self.clock_s

    def _budget(self) -> int:
        """Tokens of this call: a lone request's are cut to a chunk, and prefills beside decodes get their share."""
        budget, running, num_waiting = self.token_budget, self.running.entries, len(self.queue)
        alone = len(running) + num_waiting == 1
        self.max_chunk = 0 if alone else self._chunk_limit
        if alone and not self.policy.uncapped_when_alone:
            return min(budget, self.policy.max_chunk)
        if self.prefill_share >= 1.0:
            return budget
        num_prefills = sum(entry.in_prefill for entry in running)
        if num_prefills == len(running) or num_prefills + num_waiting < self.policy.prefill_share_from:
            return budget
        served = self.running.served_decodes(self.memory, budget, self.limits.block_size, self._guard.holds)
        return min(budget, served + max(1, int(budget * self.prefill_share)))


def _by_arrival(entry: Seen) -> None:
    """The key of first come, first served."""
    entry.key, entry.slope = float(entry.number), 0.0
