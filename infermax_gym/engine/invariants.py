"""Numbered invariants of an engine, checked after every iteration in debug mode and by the property tests.

1. Requests are conserved: future + waiting + running + finished + rejected = all; what is counted of them is right.
2. KV blocks are conserved: free + held + withheld = capacity, none negative.
3. The clock never goes back.
4. A running request's blocks hold its tokens; a waiting one holds no block.
5. Tokens appear in order: generated <= output, computed <= known tokens, first token before finish.
6. An iteration keeps its budgets: tokens <= budget, running <= seats.
7. Granted tokens = tokens computed so far + recomputed.
8. A decode has exactly one known token that is not computed.
9. There is progress: the iterations in a row without an output token are bounded (docs/engine.md, progress guard).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.state import FINISHED, FUTURE, REJECTED, RUNNING, WAITING, Engine


class InvariantError(AssertionError):
    """An invariant of the engine does not hold: a bug in the engine, not in its use."""


class InvariantChecker:
    """Checks an engine again and again as it runs.

    Disbands the lock-step group before looking, which changes no result.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last_clock_s = -np.inf
        disband(engine.now)
        self.granted = self._accounted_for()

    def after_iteration(self) -> None:
        """Check everything after an iteration.

        Raises:
            InvariantError: names the number of the invariant and the figures.
        """
        core = self.engine.record[0]
        self.granted += int(core["num_tokens"])
        self._require(core["num_tokens"] <= core["token_budget"], 6, f"{core['num_tokens']} tokens in an iteration")
        stalled, limit = int(core["stalled_iterations"]), 128 + 4 * int(core["num_blocks"] * core["block_size"])
        self._require(stalled <= limit, 9, f"{stalled} iterations without an output token, {limit} at most")
        self.now()

    def now(self) -> None:
        """Check everything that must hold between iterations.

        Raises:
            InvariantError: as above.
        """
        disband(self.engine.now)
        core, req = self.engine.record[0], self.engine.requests
        self._conservation(core, req)
        self._requests(core, req)
        self._require(core["clock_s"] >= self.last_clock_s, 3, f"clock {core['clock_s']} after {self.last_clock_s}")
        self.last_clock_s = float(core["clock_s"])

    def _conservation(self, core: Any, req: Any) -> None:
        counts = np.bincount(req["place"], minlength=5)
        expected = (core["num_waiting"], core["num_running"], core["num_finished"], core["num_rejected"])
        found = (counts[WAITING], counts[RUNNING], counts[FINISHED], counts[REJECTED])
        self._require(expected == found, 1, f"counters {expected}, requests {found}")
        self._require(counts[FUTURE] == core["num_requests"] - core["next_arrival"], 1, "requests to come")
        waiting = req["place"] == WAITING
        known = (req["prompt"] + req["generated"])[waiting].sum()
        self._require(core["waiting_tokens"] == known, 1, f"{known} tokens wait, {core['waiting_tokens']} counted")
        unstarted = (waiting | (req["place"] == RUNNING)) & (req["generated"] == 0)
        self._require(core["num_unstarted"] == unstarted.sum(), 1, "count of requests without a token")
        run = self.engine.arrays["run"][: core["num_running"]]
        self._require(len(np.unique(run)) == len(run) and bool(np.all(req["place"][run] == RUNNING)), 1, "running list")
        self._require(core["num_running_prefills"] == req["in_prefill"][run].sum(), 1, "count of running prefills")
        blocks = core["free_blocks"] + req["held"].sum() + core["withheld_blocks"]
        self._require(blocks == core["num_blocks"] and core["free_blocks"] >= 0, 2, f"{blocks} of {core['num_blocks']}")
        self._require(core["num_running"] <= core["num_seats"], 6, f"{core['num_running']} requests running")

    def _requests(self, core: Any, req: Any) -> None:
        known = req["prompt"] + req["generated"]
        running = req["place"] == RUNNING
        self._require(bool(np.all(req["held"] * core["block_size"] >= req["computed"] * running)), 4, "blocks too few")
        self._require(bool(np.all(req["held"][~running] == 0)), 4, "a request that does not run holds blocks")
        self._require(bool(np.all(req["generated"] <= req["output"]) and np.all(req["computed"] <= known)), 5, "tokens")
        done = req["place"] == FINISHED
        ordered = req["first_token_s"][done] <= req["finish_s"][done]
        self._require(bool(np.all(ordered) and np.all(req["generated"][done] == req["output"][done])), 5, "finish")
        decoding = running & (req["in_prefill"] == 0)
        self._require(bool(np.all((known - req["computed"])[decoding] == 1)), 8, "a decode's missing tokens")
        total = self._accounted_for()
        self._require(self.granted == total, 7, f"{self.granted} tokens granted, {total} accounted for")

    def _accounted_for(self) -> int:
        return int(self.engine.requests["computed"].sum() + self.engine.record["num_recomputed"][0])

    def _require(self, condition: Any, number: int, what: str) -> None:
        if not condition:
            clock_s = float(self.engine.record["clock_s"][0])
            raise InvariantError(f"invariant {number} broken at {clock_s:.6g} s: {what}")
