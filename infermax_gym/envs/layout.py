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


class Kind(IntEnum):
    """The kind of an action."""

    RUN = 0
    ADMIT = 1
    PREEMPT = 2


WAITING_FEATURES = (
    "present",  # 1 in a slot that holds a request
    "wait",  # seconds since arrival, squashed at 10
    "known_tokens",  # prompt + generated, squashed at 1,000
    "generated_tokens",  # squashed at 100
    "admission_blocks",  # blocks that admission takes, share of capacity
    "spare_blocks",  # free blocks after admission, share of capacity; negative if it does not fit
    "predicted_remaining",  # output tokens, squashed at 100; 0 without a prediction
    "slo_slack",  # TTFT left / TTFT objective, in -1 .. 1; 1 without an objective or after the first token
    "preemptions",  # squashed at 1
    "on_host",  # 1 if its KV is in host memory
    "touched",  # 1 if it was preempted since the last iteration
    "runway",  # iterations until memory is full if it is admitted and all decode, squashed at 50; negative likewise
)
RUNNING_FEATURES = (
    "present",
    "age",  # seconds since arrival, squashed at 10
    "known_tokens",  # squashed at 1,000
    "generated_tokens",  # squashed at 100
    "held_blocks",  # share of capacity
    "lacking_tokens",  # prefill tokens still to compute, squashed at 512; 0 for a decode
    "is_prefill",
    "predicted_remaining",  # output tokens, squashed at 100; 0 without a prediction
    "preemptions",  # squashed at 1
    "needs_block",  # 1 if its next token needs a new block
    "touched",  # 1 if it was admitted since the last iteration: it cannot be preempted before it has run
)
ENGINE_FEATURES = (
    "free_blocks",  # share of capacity
    "running",  # share of sequences
    "decodes",  # share of sequences
    "prefills",  # running prefills, squashed at 2
    "waiting",  # requests, squashed at 16
    "waiting_tokens",  # known tokens of the queue, squashed at the KV capacity
    "decode_demand",  # blocks that the next token of every decode takes, share of the free ones (at most 1)
    "decode_context",  # KV tokens of the decodes, share of capacity
    "oldest_wait",  # seconds, squashed at 10
    "unstarted",  # requests in the system without a first token, squashed at 16
    "decode_seconds",  # duration of an iteration of the decodes alone, squashed at 0.05 s
    "full_seconds",  # duration of an iteration that spends the whole token budget on one prefill, squashed at 0.05 s
    "token_budget",  # squashed at 1,000
    "capacity",  # KV tokens, squashed at 100,000
    "max_num_seqs",  # squashed at 64
    "arrival_rate",  # requests per second so far, squashed at 5
    "level",  # chunk budget of the last RUN, share of the token budget
    "admitted",  # since the last iteration, squashed at 2
    "preempted",  # since the last iteration, squashed at 2
    "preemption_rate",  # preemptions per finished request so far, squashed at 1
)


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
