"""Numbered invariants of an engine, checked after every iteration in debug mode and by the property tests.

1. Requests are conserved: future + waiting + running + finished + rejected = all; what is counted of them is right.
2. KV blocks are conserved: free + held + withheld = capacity, none negative; with a prefix cache, what several hold
   counts once.
3. The clock never goes back.
4. A running request's blocks hold its tokens; a waiting one holds no block.
5. Tokens appear in order: generated <= output, computed <= known tokens, first token before finish.
6. An iteration keeps its budgets: tokens <= budget, running <= max_num_seqs (if that was lowered: as many as before).
7. Granted tokens = tokens computed so far + recomputed - found in the prefix cache.
8. A decode has exactly one known token that is not computed.
9. There is progress: the iterations in a row without an output token are bounded (docs/engine.md, progress guard).
10. The prefix cache is whole: blocks are counted by those who hold them, the queue has exactly those that nobody holds,
   and what is present is present from its root on, the parent never before its children in the queue.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.engine.kernel.check import BROKEN, all_in_order, run_checked
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.prefix import settle
from infermax_gym.engine.kernel.run import LIMIT, run
from infermax_gym.engine.layout import FINISHED, FUTURE, REJECTED, RUNNING, WAITING
from infermax_gym.engine.state import Engine


class InvariantError(AssertionError):
    """An invariant of the engine does not hold: a bug in the engine, not in its use."""


class InvariantChecker:
    """Checks an engine again and again as it runs.

    Disbands the lock-step group before looking, which changes no result.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last_clock_s = -np.inf
        self.last_running = int(engine.record["num_running"][0])
        disband(engine.core)
        self.granted = self._accounted_for()

    @property
    def most_stalled(self) -> int:
        """Iterations in a row without an output token that invariant 9 allows."""
        core = self.engine.record[0]
        return 128 + 4 * int(core["num_blocks"] * core["block_size"])

    def run(self, until_s: float = np.inf) -> int:
        """Run the engine on as `kernel.run.run` does, without fast-forward, and check after every iteration.

        Returns what `run` returns: DONE, LOG_FULL, STUCK, or LIMIT at the first iteration end at or after `until_s`.

        Raises:
            InvariantError: as below.
        """
        core = self.engine.record
        if not core["prefix_caching"][0]:
            granted = np.array([self.granted])
            code = int(run_checked(self.engine.core, granted, self.most_stalled, until_s))
            self.granted = int(granted[0])
            if code == BROKEN:
                self._budgets()
                self.check_now()
                raise InvariantError("an invariant does not hold")
            self._remember()
            return code
        while True:
            num_before = int(core["num_iterations"][0])
            code = int(run(self.engine.core, 1, until_s, False))
            if core["num_iterations"][0] > num_before:
                self.after_iteration()
            if code != LIMIT or core["clock_s"][0] >= until_s:
                return code

    def after_iteration(self) -> None:
        """Check everything after an iteration.

        Raises:
            InvariantError: names the number of the invariant and the figures.
        """
        self.granted += int(self.engine.record["num_tokens"][0])
        self._budgets()
        self.check_now()

    def _budgets(self) -> None:
        core = self.engine.record[0]
        self._require(core["num_tokens"] <= core["token_budget"], 6, f"{core['num_tokens']} tokens in an iteration")
        stalled, limit = int(core["stalled_iterations"]), self.most_stalled
        self._require(stalled <= limit, 9, f"{stalled} iterations without an output token, {limit} at most")

    def check_now(self) -> None:
        """Check everything that must hold between iterations.

        Raises:
            InvariantError: as above.
        """
        disband(self.engine.core)
        core, req = self.engine.record[0], self.engine.requests
        if not core["prefix_caching"] and all_in_order(
            self.engine.core, self.granted, self.last_clock_s, self.last_running
        ):
            self._remember()
            return
        self._conservation(core, req)
        self._requests(core, req)
        self._require(core["clock_s"] >= self.last_clock_s, 3, f"clock {core['clock_s']} after {self.last_clock_s}")
        self._remember()

    def _remember(self) -> None:
        core = self.engine.record[0]
        self.last_clock_s = float(core["clock_s"])
        self.last_running = int(core["num_running"])

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
        if core["prefix_caching"]:
            held = self._cached_blocks(core) + (req["held"] - self.engine.arrays["holds"]["depth"]).sum()
        else:
            held = req["held"].sum()
        blocks = core["free_blocks"] + held + core["withheld_blocks"]
        self._require(blocks == core["num_blocks"] and core["free_blocks"] >= 0, 2, f"{blocks} of {core['num_blocks']}")
        max_num_seqs = max(core["max_num_seqs"], self.last_running)
        self._require(core["num_running"] <= max_num_seqs, 6, f"{core['num_running']} requests running")

    def _requests(self, core: Any, req: Any) -> None:
        known = req["prompt"] + req["generated"]
        running = req["place"] == RUNNING
        self._require(bool(np.all(req["held"] * core["block_size"] >= req["computed"] * running)), 4, "blocks too few")
        keeps = running
        if core["prefix_caching"] and (core["release_at_batch_end"] or core["lingers"]):
            keeps = running | (req["place"] == FINISHED)
        self._require(bool(np.all(req["held"][~keeps] == 0)), 4, "a request that does not run holds blocks")
        self._require(bool(np.all(req["generated"] <= req["output"]) and np.all(req["computed"] <= known)), 5, "tokens")
        done = req["place"] == FINISHED
        ordered = req["first_token_s"][done] <= req["finish_s"][done]
        self._require(bool(np.all(ordered) and np.all(req["generated"][done] == req["output"][done])), 5, "finish")
        decoding = running & (req["in_prefill"] == 0)
        self._require(bool(np.all((known - req["computed"])[decoding] == 1)), 8, "a decode's missing tokens")
        total = self._accounted_for()
        self._require(self.granted == total, 7, f"{self.granted} tokens granted, {total} accounted for")

    def _cached_blocks(self, core: Any) -> int:
        """Published blocks that somebody holds, each once; checks the cache on the way."""
        settle(core)
        nodes, segments, holds = (self.engine.arrays[name] for name in ("nodes", "segments", "holds"))
        refs = np.zeros(len(segments), np.int64)
        for tip, depth in zip(holds["tip"].tolist(), holds["depth"].tolist(), strict=True):
            way = self._way(tip)
            refs[way] += 1
            self._require(segments["size"][way].sum() == depth, 10, "a request's published blocks")
        place: dict[int, int] = {}
        i = int(core["oldest_segment"])
        while i >= 0:
            place[i] = len(place)
            i = int(segments["newer"][i])
        queued = segments["size"][list(place)].sum()
        self._require(queued == core["queued_blocks"] == core["free_blocks"], 10, f"{queued} blocks in the queue")
        held = 0
        for u in np.flatnonzero(nodes["present"]).tolist():
            own = [i for i in self._way(int(nodes["last"][u])) if segments["node"][i] == u]
            self._require(segments["size"][own].sum() == nodes["present"][u], 10, f"blocks present of node {u}")
            above = nodes["parent"][u]
            whole = above < 0 or nodes["present"][above] == nodes["end"][above] - nodes["start"][above]
            self._require(whole, 10, f"the way to node {u} has a gap")
            self._require(np.array_equal(segments["refs"][own], refs[own]), 10, f"holders of node {u}")
            self._require(all((i in place) == (refs[i] == 0) for i in own), 10, f"node {u} and the queue")
            ups = [(i, int(segments["up"][i])) for i in own if i in place]
            self._require(all(place[i] < place.get(up, len(place)) for i, up in ups), 10, f"order of node {u}")
            held += int(segments["size"][own][refs[own] > 0].sum())
        return held

    def _way(self, i: int) -> list[int]:
        """A segment and all before it, up to the root."""
        way = []
        while i >= 0:
            way.append(i)
            i = int(self.engine.arrays["segments"]["up"][i])
        return way

    def _accounted_for(self) -> int:
        core = self.engine.record[0]
        return int(self.engine.requests["computed"].sum() + core["num_recomputed"] - core["num_cached"])

    def _require(self, condition: Any, number: int, what: str) -> None:
        if not condition:
            clock_s = float(self.engine.record["clock_s"][0])
            raise InvariantError(f"invariant {number} broken at {clock_s:.6g} s: {what}")
