"""A fleet once more, in plain Python, from docs/cluster.md alone; its replicas are the reference engine's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from infermax_gym.cluster import Fleet, Router, Score
from infermax_gym.streams import stream
from infermax_gym.workload.workload import Workload
from tests.cluster.reference_ahead import choose_ahead
from tests.cluster.reference_migration import Migrations
from tests.cluster.reference_replica import Replica
from tests.reference.closed_loop import Loop
from tests.reference.engine import _requests
from tests.reference.request import Request


class Texts:
    """What two requests of a workload have in common (docs/engine.md, prefix cache, "Contents")."""

    def __init__(self, workload: Workload, block_size: int) -> None:
        self.block_size = block_size
        self.size = workload.prefix_block_size
        edges = workload.prefix_start.tolist()
        self.hashes = [workload.prefix_blocks[a:b].tolist() for a, b in pairwise(edges)]
        prompts, outputs = workload.num_prompt_tokens.tolist(), workload.num_output_tokens.tolist()
        self.covered = []
        for hashes, prompt, output in zip(self.hashes, prompts, outputs, strict=True):
            speaks_of_output = self.size > 0 and len(hashes) > math.ceil(prompt / self.size)
            self.covered.append(min(len(hashes) * self.size, prompt + output if speaks_of_output else prompt))

    def shared(self, r: int, q: int) -> int:
        """Tokens of whole blocks that both begin with."""
        common = 0
        for a, b in zip(self.hashes[r], self.hashes[q], strict=False):
            if a != b:
                break
            common += 1
        tokens = min(common * self.size, self.covered[r], self.covered[q])
        return tokens // self.block_size * self.block_size


class ReferenceFleet:
    """A fleet under way."""

    def __init__(self, workload: Workload, fleet: Fleet, router: Router, predicted: np.ndarray | None) -> None:
        self.fleet = fleet
        self.router = router
        self.requests = _requests(workload, predicted)
        self.session = workload.session.tolist()
        self.last_of_session: dict[int, tuple[float, int | None]] = {}  # when it arrived, where it went
        self.replicas = [Replica(workload, replica, predicted) for replica in fleet.replicas]
        self.seen = [replica.signals.copy() for replica in self.replicas]
        self.last_snapshot = -1
        self.texts = Texts(workload, min(r.config.block_size for r in fleet.replicas))
        caches = any(replica.config.prefix_caching for replica in fleet.replicas)
        self.has_map = router.uses_prefixes and caches
        self.sent = [0] * len(self.replicas)
        self.sent_when: list[list[tuple[int, int]]] = [[] for _ in self.replicas]  # (request, `sent` after it)
        self.last_chosen = len(self.replicas) - 1
        self.migrations = Migrations(fleet.migration, self.replicas) if fleet.migration else None
        self.new_tokens: list[tuple[float, int, int, int]] = []  # (when, replica, tenant, tokens that matched nothing)

    def look(self, at_s: float) -> None:
        staleness_s = self.fleet.staleness_s
        if staleness_s == 0.0:
            self.advance(at_s)
            self.seen = [replica.signals for replica in self.replicas]
            return
        number = self.last_snapshot
        while (number + 1) * staleness_s * (1 - 2**-50) <= at_s:
            number += 1
        if number > self.last_snapshot:
            self.advance(min(number * staleness_s, at_s))
            self.seen = [replica.signals.copy() for replica in self.replicas]
            self.last_snapshot = number
        if self.migrations or self.router.score == Score.AHEAD:
            self.advance(at_s)

    def advance(self, until_s: float) -> None:
        if self.migrations:
            self.migrations.advance(until_s)
            return
        for replica in self.replicas:
            replica.advance(until_s)

    def arrivals(self, loop: Loop) -> Iterator[Request]:
        """Requests as they come, where ends send others: each event in its turn, nobody runs ahead of another."""
        for replica in self.replicas:
            replica.run.loop = loop
        for _ in range(len(self.requests)):
            while self.happens_before(loop.to_come[0].arrival_s if loop.to_come else math.inf):
                pass
            request = loop.to_come.pop(0)
            for replica in self.replicas:
                replica.requests[request.number].arrival_s = request.arrival_s
                replica.requests[request.number].level_place_s = request.arrival_s
            yield request

    def happens_before(self, until_s: float) -> bool:
        """The next snapshot, landing, pairing or boundary before a moment; False if there is none."""
        flying = [move.at_s for move in self.migrations.moves if move.flying] if self.migrations else []
        change_s = min([replica.next_boundary_s for replica in self.replicas] + flying)
        staleness_s = self.fleet.staleness_s
        if change_s >= until_s:
            self.advance_to_pairings(until_s)
            return False
        if staleness_s > 0.0 and (self.router.needs_signals or self.migrations):
            number = self.last_snapshot
            while (number + 1) * staleness_s <= change_s:
                number += 1
            if number > self.last_snapshot:
                self.advance(number * staleness_s)
                self.seen = [replica.signals.copy() for replica in self.replicas]
                self.last_snapshot = number
        if self.migrations:
            self.migrations.one_event(until_s)
        else:
            self.replicas[[replica.next_boundary_s for replica in self.replicas].index(change_s)].step()
        return True

    def advance_to_pairings(self, until_s: float) -> None:
        """Pairings before a moment before which nothing else happens."""
        if self.migrations and until_s < math.inf:
            self.migrations.advance(until_s)

    def choose(self, request: Request, draws: list[float]) -> int | None:
        candidates = [i for i, replica in enumerate(self.replicas) if replica.can_hold(request)]
        if not candidates:
            return None
        self.matched = [self.match(i, request) for i in range(len(self.replicas))]
        at_s, bound = self.last_of_session.get(self.session[request.number], (-math.inf, None))
        if bound in candidates and self.router.sticky_s > 0.0 and request.arrival_s - at_s <= self.router.sticky_s:
            return bound
        if self.router.score == Score.PREFIX:
            return self.prefix_rule(candidates, request)
        if self.router.score in (Score.NORMALISED, Score.E2, Score.DEFICIT):
            line = sorted(candidates, key=lambda i: (i - self.last_chosen - 1) % len(self.replicas))
            rules = {Score.NORMALISED: self.normalised, Score.E2: self.e2, Score.DEFICIT: self.deficit}
            return rules[self.router.score](line, request)
        if self.router.score == Score.AHEAD:
            line = sorted(candidates, key=lambda i: (i - self.last_chosen - 1) % len(self.replicas))
            return choose_ahead(self.router, self.replicas, line, [seen.prefill_tokens for seen in self.seen], request)
        if self.router.num_choices == 0:
            count = len(self.replicas)
            candidates.sort(key=lambda i: (i - self.last_chosen - 1) % count)  # whoever is next in line wins ties
            return min(candidates, key=lambda i: self.score(i, request))
        left, sample = candidates, []
        for u in draws[: len(candidates)]:
            sample.append(left[int(u * len(left))])
            left = [i for i in left if i != sample[-1]]
        return min(sample, key=lambda i: self.score(i, request))

    def score(self, i: int, request: Request) -> float:
        seen, replica, prompt = self.seen[i], self.replicas[i], request.num_prompt_tokens
        there = seen.num_waiting + seen.num_running
        table: dict[Score, Callable[[], float]] = {
            Score.WEIGHTED: lambda: sum(w * v for w, v in zip(self.router.weights, vars(seen).values(), strict=True)),
            Score.KV_SHARE: lambda: (replica.capacity - seen.free_kv_tokens + seen.waiting_tokens) / replica.capacity,
            Score.FREENESS: lambda: -(seen.free_kv_tokens - seen.waiting_tokens) / there if there else -math.inf,
            Score.PREFILL_BY_BATCH: lambda: (seen.prefill_tokens + prompt - self.matched[i]) * there,
            Score.START_DELAY: lambda: self.start_delay(i, prompt),
        }
        return table[self.router.score]()

    def match(self, i: int, request: Request) -> int:
        """Tokens of the prompt that are presumably cached at a replica."""
        replica = self.replicas[i]
        if not self.has_map or not replica.run.engine.config.prefix_caching:
            return 0
        known = [q for q, stamp in self.sent_when[i] if self.sent[i] - stamp <= replica.capacity]
        longest = max((self.texts.shared(request.number, q) for q in known), default=0)
        return min(longest, request.num_prompt_tokens - 1)

    def prefix_rule(self, candidates: list[int], request: Request) -> int:
        count = len(self.replicas)
        line = sorted(candidates, key=lambda i: (i - self.last_chosen - 1) % count)
        loads = {i: self.seen[i].num_waiting + self.seen[i].num_running for i in line}
        most, least = max(loads.values()), min(loads.values())
        if most - least > self.router.most_difference and most > self.router.most_ratio * least:
            return min(line, key=lambda i: loads[i])
        best = max(line, key=lambda i: self.matched[i])
        if self.matched[best] > self.router.least_match * request.num_prompt_tokens:
            return best
        return min(line, key=lambda i: min(self.sent[i], self.replicas[i].capacity))

    def normalised(self, line: list[int], request: Request) -> int:
        waiting = [self.seen[i].num_waiting for i in line]
        gap = max(waiting) - min(waiting)

        def total(i: int) -> float:
            prefix = self.matched[i] / request.num_prompt_tokens
            queue = (max(waiting) - self.seen[i].num_waiting) / gap if gap else 1.0
            kv = self.seen[i].free_kv_tokens / self.replicas[i].capacity
            return sum(w * share for w, share in zip(self.router.share_weights, (prefix, queue, kv), strict=True))

        return max(line, key=total)

    def e2(self, line: list[int], request: Request) -> int:
        prompt = request.num_prompt_tokens
        since = request.arrival_s - self.router.recent_s
        load = [sum(n for at, j, _, n in self.new_tokens if j == i and at > since) for i in range(len(self.replicas))]
        rate = [replica.prefill_tokens_per_s for replica in self.replicas]
        longest = max(self.matched[i] for i in line)
        if longest > prompt - longest:
            return min((i for i in line if self.matched[i] == longest), key=lambda i: load[i] / rate[i])

        def cost(i: int) -> float:
            new, capacity = prompt - self.matched[i], self.replicas[i].capacity
            evicted = max(0, min(self.sent[i], capacity) + new - capacity)
            return (load[i] + new + evicted) / rate[i]

        return min(line, key=cost)

    def deficit(self, line: list[int], request: Request) -> int:
        mine = [(j, n) for _, j, tenant, n in self.new_tokens if tenant == request.tenant]
        credit = {i: -sum(n for j, n in mine if j == i) for i in line}
        while max(credit.values()) <= 0:
            credit = {i: left + self.router.quantum_tokens for i, left in credit.items()}
        return max((i for i in line if credit[i] > 0), key=lambda i: self.matched[i])

    def start_delay(self, i: int, prompt: int) -> float:
        seen, rate = self.seen[i], self.replicas[i].prefill_tokens_per_s
        release_rate = seen.released_tokens_per_s or rate
        return max(seen.prefill_tokens / rate, max(0, prompt - seen.free_kv_tokens) / release_rate)

    def send(self, number: int, i: int) -> None:
        self.replicas[i].send(number)
        request = self.requests[number]
        new_tokens = request.num_prompt_tokens - self.matched[i]
        self.sent[i] += new_tokens
        self.new_tokens.append((request.arrival_s, i, request.tenant, new_tokens))
        self.sent_when[i].append((number, self.sent[i]))
        if self.fleet.staleness_s > 0.0 and self.fleet.counts_routed:
            self.seen[i].count(self.requests[number])
        self.last_chosen = i


def simulate_fleet_reference(
    workload: Workload,
    fleet: Fleet,
    router: Router,
    seed: int = 0,
    predicted: np.ndarray | None = None,
    prefilled_s: list[float] | None = None,
) -> tuple[list[int], list[Request], ReferenceFleet]:
    """Where each request went (-1: rejected), the requests as their replicas left them, and the fleet."""
    reference = ReferenceFleet(workload, fleet, router, predicted)
    if prefilled_s is not None:
        for requests in (reference.requests, *(replica.requests for replica in reference.replicas)):
            for request, first_token_s in zip(requests, prefilled_s, strict=True):
                request.resident, request.generated, request.first_token_s = request.num_prompt_tokens, 1, first_token_s
                request.last_token_s = first_token_s
                request.is_decode = request.on_host = True
    draws = stream(seed, "router").random((len(workload), router.num_choices)).tolist()
    went, served = [-1] * len(workload), []
    loop = Loop(workload, reference.requests)
    for request in reference.arrivals(loop) if workload.is_closed_loop else reference.requests:
        number = request.number
        if router.needs_signals or fleet.migration:
            reference.look(request.arrival_s)
        i = reference.choose(request, draws[number])
        reference.last_of_session[reference.session[number]] = request.arrival_s, i
        if i is None:
            request.status = "rejected"
            loop.end(number, request.arrival_s)
        else:
            went[number] = i
            reference.send(number, i)
    reference.advance(math.inf)
    home = reference.migrations.home if reference.migrations else {}
    for number, i in enumerate(went):
        if i >= 0:
            served.append(reference.replicas[home.get(number, i)].requests[number])
        else:
            served.append(reference.requests[number])
    return went, served, reference
