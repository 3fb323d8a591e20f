"""What a decision of the vLLM plug-in takes: 256 running and 1,000 waiting requests, plain Python, no vllm needed.

Times one call of the scheduler without vLLM's own part: order, budget, the head of the queue, one admission test; and
what a controller adds at each of its settings, once every `interval_s` seconds.
"""

from __future__ import annotations

import statistics
import time
from types import SimpleNamespace
from typing import Any

from infermax_gym.vllm.admission import Candidate, Limits
from infermax_gym.vllm.choosing import Choosing
from infermax_gym.vllm.controlling import Controlling
from infermax_gym.vllm.decisions import Decisions
from infermax_gym.vllm.settings import read_settings

NUM_RUNNING, NUM_WAITING, CALLS = 256, 1000, 200
LIMITS = Limits(20_000, 16, 2048, 512, 8192, 4096)


class Request(SimpleNamespace):
    """Counts are looked up as in vLLM's own."""

    tokens: list[int]
    outputs: list[int]

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens."""
        return len(self.tokens)

    @property
    def num_output_tokens(self) -> int:
        """Output tokens."""
        return len(self.outputs)


def request(r: int, computed: int = 0, generated: int = 0) -> Any:
    """A request of vLLM, as far as a policy looks at it."""
    prompt = 50 + 37 * r % 900
    return Request(
        request_id=str(r),
        num_prompt_tokens=prompt,
        outputs=[0] * generated,
        tokens=[0] * (prompt + generated),
        num_output_placeholders=0,
        num_computed_tokens=computed * (prompt + generated - 1),
        arrival_time=0.01 * r,
        priority=0,
        sampling_params=None,
    )


class Memory:
    """Enough of it."""

    free_blocks = 5_000

    def held_tokens(self, entry: Any) -> int:
        """Whole blocks of what is computed."""
        return -(-entry.computed // 16) * 16

    def freed_blocks(self, entry: Any) -> int:
        """All of them."""
        return -(-entry.computed // 16)


def measure(settings: dict[str, Any]) -> tuple[float, float]:
    """Median CPU milliseconds of a call, and of a call with a setting of a controller."""
    given = read_settings({"infermax": settings})
    assert given.policy is not None
    controlling: Controlling | Choosing | None = None
    if given.controller is not None and given.cost is not None:
        controlling = Controlling(given.controller, given.cost)
    elif given.selector is not None and given.cost is not None:
        controlling = Choosing(given.selector, given.cost, LIMITS)
    now = [100.0]
    made = Decisions(given.policy, LIMITS, Memory(), lambda: now[0], 0.0, given.cost, controlling)
    running = []
    for r in range(NUM_RUNNING):
        entry = made.entry_of(request(r))
        made.admitted(Candidate(entry, 0, 1, 0))
        entry.request = request(r, 1, 1 + r % 100)
        running.append(entry.request)
    for r in range(NUM_RUNNING, NUM_RUNNING + NUM_WAITING):
        made.queue.add_request(request(r))
    plain: list[float] = []
    setting: list[float] = []
    for call in range(CALLS):
        due = controlling is not None and call % 10 == 0
        now[0] += 100.0 if due else 0.001
        start = time.process_time_ns()
        made.begin(running)
        head = made.entry_of(made.queue.peek_request())
        made.admit(Candidate(head, 0, head.prompt, 0))
        (setting if due else plain).append(1e-6 * (time.process_time_ns() - start))
    return statistics.median(plain), statistics.median(setting) if setting else 0.0


def main() -> None:
    """Print a line for each."""
    cost = {"cost": "llama2-7b-a100"}
    tried: dict[str, dict[str, Any]] = {
        "spf-headroom": {"policy": "spf-headroom"},
        "hrrn": {"policy": "hrrn"},
        "larry": {"policy": "larry"},
        "conv-evolved": {"agent": "conv-evolved"},
        "knobs": {"agent": "knobs", **cost},
        "generalist": {"agent": "generalist", "without": ["preempt"], **cost},
        "informed": {"agent": "informed", "without": ["preempt"], **cost},
        "any-engine": {"agent": "any-engine", **cost},
    }
    for name, settings in tried.items():
        plain, setting = measure(settings)
        more = f", {setting:.2f} ms where a controller sets its knobs" if setting else ""
        print(f"{name}: {plain:.3f} ms a call{more}")


if __name__ == "__main__":
    main()
