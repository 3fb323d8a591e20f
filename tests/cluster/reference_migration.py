"""Migration in the plain-Python fleet: docs/cluster.md, "Requests that move"."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infermax_gym.cluster import Migration, Mover, Pairing
from tests.cluster.reference_replica import Replica, Signals
from tests.reference.moving import attach, give_back, set_aside
from tests.reference.request import Request


@dataclass
class Move:
    """A migration under way.

    Attributes:
        source: replica that gives ...
        destination: ... and that takes.
        request: as the source knows it.
        num_preemptions: that it had when copying began.
        num_copied: tokens copied while it decodes on.
        at_s: when the copy is complete or, once it is flying, the landing.
        flying: whether it has stopped.
    """

    source: int
    destination: int
    request: Request
    num_preemptions: int
    num_copied: int
    at_s: float
    flying: bool = False


def load_of(signals: Signals, replica: Replica, more_blocks: int = 0, more_requests: int = 0) -> float:
    """Minus the blocks that each request there may still grow by."""
    b = replica.run.engine.b
    there = signals.num_waiting + signals.num_running + more_requests
    free = signals.free_kv_tokens - signals.waiting_tokens - more_blocks * b
    return -free / b / there if there > 0 else -math.inf


class Migrations:
    """Who moves where, and when."""

    def __init__(self, rules: Migration, replicas: list[Replica]) -> None:
        self.rules = rules
        self.replicas = replicas
        self.moves: list[Move] = []
        self.next_pairing = 1
        self.home: dict[int, int] = {}
        self.count: dict[int, int] = {}
        self.num_aborted = 0

    def advance(self, until_s: float) -> None:
        """All landings, pairings and iterations before a moment, in this order where they coincide."""
        while self.one_event(until_s):
            pass

    def one_event(self, until_s: float) -> bool:
        """The first of them; False if there is none."""
        boundary_s = min(replica.next_boundary_s for replica in self.replicas)
        flying = [move for move in self.moves if move.flying]
        landing_s = min((move.at_s for move in flying), default=math.inf)
        pairing_s = self.next_pairing * self.rules.period_s
        if math.isinf(boundary_s) and not flying:  # nobody runs: pairings do nothing
            while pairing_s < until_s < math.inf:
                self.next_pairing += 1
                pairing_s = self.next_pairing * self.rules.period_s
            return False
        if min(boundary_s, landing_s, pairing_s) >= until_s:
            return False
        if landing_s <= min(pairing_s, boundary_s):
            self.land(next(move for move in flying if move.at_s == landing_s))
        elif pairing_s <= boundary_s:
            self.pair()
            self.next_pairing += 1
        else:
            self.step(next(i for i, r in enumerate(self.replicas) if r.next_boundary_s == boundary_s))
        return True

    def step(self, i: int) -> None:
        replica = self.replicas[i]
        engine = replica.run.engine
        engine.clock_s = max(engine.clock_s, replica.next_boundary_s)
        for move in [move for move in self.moves if move.source == i and not move.flying]:
            self.send_off(move, engine.clock_s)
        replica.step()

    def pair(self) -> None:
        taken = {i for move in self.moves for i in (move.source, move.destination)}
        loads = {i: load_of(r.signals, r) for i, r in enumerate(self.replicas) if i not in taken}
        sources = sorted((i for i in loads if loads[i] > self.rules.threshold), key=lambda i: -loads[i])
        targets = sorted((i for i in loads if loads[i] < self.rules.threshold), key=lambda i: loads[i])
        for source, target in zip(sources, targets, strict=False):
            self.begin(source, target)

    def mover(self, replica: Replica) -> Request | None:
        decodes = [request for request in replica.run.engine.running if request.is_decode]
        if not decodes:
            return None
        if self.rules.mover == Mover.LAST:
            return decodes[-1]
        sign = 1 if self.rules.mover == Mover.SHORTEST else -1
        return min(decodes, key=lambda request: sign * request.resident)

    def begin(self, i: int, d: int) -> None:
        source, target = self.replicas[i], self.replicas[d]
        engine = target.run.engine
        request = self.mover(source)
        if request is None:
            return
        num_blocks = engine.blocks(request.resident + 1)
        fits = engine.free - num_blocks >= engine.watermark_blocks
        if not (target.can_hold(request) and engine.seat_is_free and fits):
            return
        if not self.pays(source, target, request.held, num_blocks):
            return
        set_aside(engine, target.requests[request.number], num_blocks)
        at_s = source.run.engine.clock_s + self.transfer_s(request.resident)
        self.moves.append(Move(i, d, request, request.num_preemptions, request.resident, at_s))

    def pays(self, source: Replica, target: Replica, left: int, taken: int) -> bool:
        if self.rules.pairing == Pairing.DEFRAG:
            return True
        before = load_of(source.signals, source), load_of(target.signals, target)
        after = load_of(source.signals, source, -left, -1), load_of(target.signals, target, taken, 1)
        if after[1] > self.rules.threshold:
            return False
        return math.isinf(before[1]) or 0.0 < after[0] - after[1] < before[0] - before[1]

    def transfer_s(self, num_tokens: int) -> float:
        return float(self.rules.transfer.seconds(num_tokens))

    def send_off(self, move: Move, now_s: float) -> None:
        request, target = move.request, self.replicas[move.destination]
        engine, guest = target.run.engine, target.requests[move.request.number]
        source = self.replicas[move.source].run.engine
        lost = request not in source.running or request.num_preemptions != move.num_preemptions
        if not lost and now_s < move.at_s:
            return
        more = 0 if lost else max(0, engine.blocks(request.resident + 1) - guest.held)
        if lost or more > engine.free:
            give_back(engine, guest)
            if engine.queue and math.isinf(target.next_boundary_s):
                target.next_boundary_s = max(engine.clock_s, now_s)
            self.moves.remove(move)
            self.num_aborted += 1
            return
        engine.take(guest, more)
        source.leave(request)
        move.at_s = now_s + self.transfer_s(request.resident - move.num_copied)
        move.flying = True

    def land(self, move: Move) -> None:
        target = self.replicas[move.destination]
        engine, guest = target.run.engine, target.requests[move.request.number]
        engine.clock_s = max(engine.clock_s, move.at_s)
        attach(move.request, guest)
        target.enter(guest)
        target.signals.num_running += 1
        if math.isinf(target.next_boundary_s):
            target.next_boundary_s = engine.clock_s
        self.home[guest.number] = move.destination
        self.count[guest.number] = self.count.get(guest.number, 0) + 1
        self.moves.remove(move)
