"""One request and all that changes about it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(eq=False)
class Request:
    """A request; `eq=False` makes it compare and hash by identity.

    The letters are those of docs/engine.md.

    Attributes:
        number: its place in the order of arrival.
        arrival_s: a.
        num_prompt_tokens: I.
        num_output_tokens: O, which only `advance` and the rejection look at.
        priority: smaller is more urgent.
        slo_ttft_s: its limit on the time to the first token, 0 where there is none.
        prediction: the predicted output length.
        resident: m, tokens whose KV is stored, on the device or (`on_host`) on the host.
        generated: g.
        held: h, blocks on the device.
        is_decode: whether its known tokens are computed up to the last one; a prefill otherwise.
        is_running: whether it is in the running list.
        on_host: whether its KV was swapped out.
        queue_value: queue_weights . features, taken when it entered the queue.
        num_lost_tokens: tokens that a preemption dropped and that it has not come back for.
        first_prediction: the prediction before it was refreshed.
        level: its level.
        level_run_s: run time since it came to that level.
        level_iterations: iterations that it has been in since then.
        level_place_s: its place in the level, the smallest first.
        waiting_since_s: when it entered the queue.
        waiting_since_iteration: how many iterations there had been then.
        slo_tpot_s: its limit on the gaps between tokens, 0 where there is none.
        tenant: its tenant.
        last_token_s: when its last token appeared.
        order: its place in the order in which this engine got its requests.
        lands: whether it has come from another engine and joins the running list next.
    """

    number: int
    arrival_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    priority: int
    slo_ttft_s: float
    prediction: float
    slo_tpot_s: float
    tenant: int

    resident: int = 0
    generated: int = 0
    held: int = 0
    is_decode: bool = False
    is_running: bool = False
    on_host: bool = False
    queue_value: float = 0.0
    num_lost_tokens: int = 0
    first_prediction: float = 0.0
    level: int = 0
    level_run_s: float = 0.0
    level_iterations: int = 0
    level_place_s: float = 0.0
    waiting_since_s: float = 0.0
    waiting_since_iteration: int = 0
    last_token_s: float = math.nan
    order: int = -1
    lands: bool = False

    status: str = "waiting"
    first_scheduled_s: float = math.nan
    first_token_s: float = math.nan
    finish_s: float = math.nan
    num_preemptions: int = 0
    num_recomputed_tokens: int = 0
    num_cached_tokens: int = 0

    def __post_init__(self) -> None:
        self.first_prediction = self.prediction
        self.level_place_s = self.arrival_s
        self.order = self.number

    @property
    def known(self) -> int:
        """K: prompt and generated tokens."""
        return self.num_prompt_tokens + self.generated
