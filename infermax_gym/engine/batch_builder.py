"""A decision in the making, for schedulers written in Python: it keeps the books of tokens, requests and blocks."""

from __future__ import annotations

from infermax_gym.engine.scheduler import Decision, OnlineView, RequestsView


class BatchBuilder:
    """Puts a batch together from a view, request by request, and says what does not fit.

    A decode gets one token. A prefill gets what it lacks, as far as the token budget goes (chunked prefill).

    Args:
        view: what `Scheduler.decide` was given.

    Attributes:
        tokens_left: of the token budget.
        free_blocks: KV blocks that nobody holds.
        num_running: running requests, those admitted here too.
        preempted: whom this decision preempts, in order.
    """

    def __init__(self, view: OnlineView) -> None:
        self.tokens_left = view.max_num_batched_tokens
        self.free_blocks = view.free_blocks
        self.num_running = len(view.running)
        self.preempted: list[int] = []
        self._view = view
        self._batch: dict[int, int] = {}
        self._running = {int(r): i for i, r in enumerate(view.running.request)}
        self._waiting = {int(r): i for i, r in enumerate(view.waiting.request)}

    def serve(self, request: int) -> bool:
        """Give a running request its tokens; False if its KV blocks do not fit: preempt somebody, and ask again.

        True also where it gets nothing, because no token is left in the budget or it has been preempted.
        """
        position = self._running.get(int(request))
        if position is None:
            return True
        running = self._view.running
        tokens = min(self._lacking(running, position), self.tokens_left)
        computed = int(running.num_computed_tokens[position])
        blocks = max(self._view.blocks_for(computed + tokens) - int(running.num_blocks[position]), 0)
        if blocks > self.free_blocks:
            return False
        self._grant(int(request), tokens, blocks)
        return True

    def admit(self, request: int) -> bool:
        """Let a waiting request join with its first tokens; False if no token, place or block is left for it."""
        waiting, position = self._view.waiting, self._waiting[int(request)]
        cached = int(waiting.num_cached_tokens[position])
        tokens = min(self._lacking(waiting, position) - cached, self.tokens_left)
        blocks = self._view.blocks_for(int(waiting.num_computed_tokens[position]) + cached + tokens)
        blocks -= int(waiting.num_shared_blocks[position])
        if tokens <= 0 or self.num_running >= self._view.max_num_seqs or blocks > self.free_blocks:
            return False
        self.num_running += 1
        self._grant(int(request), tokens, blocks)
        return True

    def preempt(self, request: int) -> None:
        """Preempt a running request that has got no tokens here: its blocks become free.

        Raises:
            ValueError: it is not running, or it has got tokens.
        """
        position = self._running.get(int(request))
        if position is None or int(request) in self._batch:
            raise ValueError(f"request {request} cannot be preempted: it must run and have got no tokens")
        running = self._view.running
        del self._running[int(request)]
        self.preempted.append(int(request))
        self.num_running -= 1
        self.free_blocks += int(running.num_blocks[position]) - int(running.num_shared_blocks[position])

    def decision(self) -> Decision:
        """The decision as it stands."""
        return Decision(list(self._batch.items()), list(self.preempted))

    def _lacking(self, requests: RequestsView, position: int) -> int:
        known = requests.num_prompt_tokens[position] + requests.num_generated_tokens[position]
        return int(known - requests.num_computed_tokens[position])

    def _grant(self, request: int, tokens: int, blocks: int) -> None:
        if tokens > 0:
            self._batch[request] = tokens
            self.tokens_left -= tokens
            self.free_blocks -= blocks
