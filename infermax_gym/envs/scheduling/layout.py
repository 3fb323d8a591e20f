"""Where things stand in actions and observations: the one place for their order and their sizes.

An action of `InferMax-v0` is one number, laid out by kind and target:

    RUN     0 .. num_chunk_budgets - 1  run the next iteration, prefills limited to that chunk budget
    ADMIT   then num_waiting_slots      admit the request in that waiting slot
    PREEMPT then num_running_slots      preempt the request in that running slot

so that a policy can choose the kind first and then a target of that kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

MOST_SLOTS = 128
"""Slots of a kind that an environment may have."""


class Kind(IntEnum):
    """The kind of an action."""

    RUN = 0
    ADMIT = 1
    PREEMPT = 2


class WaitingFeature(IntEnum):
    """Numbers that describe a waiting slot, in order."""

    PRESENT = 0  # 1 in a slot that holds a request
    WAIT = 1  # seconds since arrival, squashed at 10
    KNOWN_TOKENS = 2  # prompt + generated, squashed at 1,000
    GENERATED_TOKENS = 3  # squashed at 100
    ADMISSION_BLOCKS = 4  # blocks that admission takes, share of capacity
    SPARE_BLOCKS = 5  # free blocks after admission, share of capacity; negative if it does not fit
    PREDICTED_REMAINING = 6  # output tokens, squashed at 100; 0 without a prediction
    SLO_SLACK = 7  # TTFT left / TTFT objective, in -1 .. 1; 1 without an objective or after the first token
    PREEMPTIONS = 8  # squashed at 1
    ON_HOST = 9  # 1 if its KV is in host memory
    TOUCHED = 10  # 1 if it was preempted since the last iteration
    RUNWAY = 11  # iterations until memory is full if it is admitted and all decode, squashed at 50; negative likewise


WAITING_FEATURES = tuple(entry.name.lower() for entry in WaitingFeature)


class RunningFeature(IntEnum):
    """Numbers that describe a running slot, in order."""

    PRESENT = 0
    AGE = 1  # seconds since arrival, squashed at 10
    KNOWN_TOKENS = 2  # squashed at 1,000
    GENERATED_TOKENS = 3  # squashed at 100
    HELD_BLOCKS = 4  # share of capacity
    LACKING_TOKENS = 5  # prefill tokens still to compute, squashed at 512; 0 for a decode
    IS_PREFILL = 6
    PREDICTED_REMAINING = 7  # output tokens, squashed at 100; 0 without a prediction
    PREEMPTIONS = 8  # squashed at 1
    NEEDS_BLOCK = 9  # 1 if its next token needs a new block
    TOUCHED = 10  # 1 if it was admitted since the last iteration: it cannot be preempted before it has run


RUNNING_FEATURES = tuple(entry.name.lower() for entry in RunningFeature)


class EngineFeature(IntEnum):
    """Numbers that describe the engine as a whole, in order."""

    FREE_BLOCKS = 0  # share of capacity
    RUNNING = 1  # share of sequences
    DECODES = 2  # share of sequences
    PREFILLS = 3  # running prefills, squashed at 2
    WAITING = 4  # requests, squashed at 16
    WAITING_TOKENS = 5  # known tokens of the queue, squashed at the KV capacity
    DECODE_DEMAND = 6  # blocks that the next token of every decode takes, share of the free ones (at most 1)
    DECODE_CONTEXT = 7  # KV tokens of the decodes, share of capacity
    OLDEST_WAIT = 8  # seconds, squashed at 10
    UNSTARTED = 9  # requests in the system without a first token, squashed at 16
    DECODE_SECONDS = 10  # duration of an iteration of the decodes alone, squashed at 0.05 s
    FULL_SECONDS = 11  # duration of an iteration that spends the whole token budget on one prefill, squashed at 0.05 s
    TOKEN_BUDGET = 12  # squashed at 1,000
    CAPACITY = 13  # KV tokens, squashed at 100,000
    MAX_NUM_SEQS = 14  # squashed at 64
    ARRIVAL_RATE = 15  # requests per second so far, squashed at 5
    LEVEL = 16  # chunk budget of the last RUN, share of the token budget
    ADMITTED = 17  # since the last iteration, squashed at 2
    PREEMPTED = 18  # since the last iteration, squashed at 2
    PREEMPTION_RATE = 19  # preemptions per finished request so far, squashed at 1


ENGINE_FEATURES = tuple(entry.name.lower() for entry in EngineFeature)


class Fact(IntEnum):
    """What the info of a step says of a lane besides times and mask, in order."""

    NUM_ILLEGAL = 0
    FINISHED_BY_AGENT = 1
    FINISHED_BY_FALLBACK = 2


FACTS = tuple(entry.name.lower() for entry in Fact)


@dataclass(frozen=True)
class ActionLayout:
    """Sizes of the parts of an action.

    Attributes:
        num_chunk_budgets: chunk budgets of RUN.
        num_waiting_slots: targets of ADMIT.
        num_running_slots: targets of PREEMPT.
    """

    num_chunk_budgets: int
    num_waiting_slots: int
    num_running_slots: int

    @property
    def num_actions(self) -> int:
        """Number of actions, all kinds together."""
        return self.num_chunk_budgets + self.num_waiting_slots + self.num_running_slots

    def encode(self, kind: Kind, target: int) -> int:
        """The action number of (kind, target).

        Raises:
            ValueError: the kind has no such target.
        """
        sizes = (self.num_chunk_budgets, self.num_waiting_slots, self.num_running_slots)
        if not 0 <= target < sizes[kind]:
            raise ValueError(f"{kind.name} has targets 0..{sizes[kind] - 1}, got {target}")
        return sum(sizes[:kind]) + target

    def decode(self, action: int) -> tuple[Kind, int]:
        """The (kind, target) of an action number.

        Raises:
            ValueError: there is no such action.
        """
        if not 0 <= action < self.num_actions:
            raise ValueError(f"actions are 0..{self.num_actions - 1}, got {action}")
        if action < self.num_chunk_budgets:
            return Kind.RUN, action
        if action < self.num_chunk_budgets + self.num_waiting_slots:
            return Kind.ADMIT, action - self.num_chunk_budgets
        return Kind.PREEMPT, action - self.num_chunk_budgets - self.num_waiting_slots
