"""The fleet as text and as a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import CONSTANTS, SIGNALS
from infermax_gym.envs.paint import DECODE, INK, KV, PAGE, QUEUE, RULE, SOFT, Canvas
from infermax_gym.envs.routing.episode import RoutingRun

_BAR = 24


def draw_ansi(run: RoutingRun) -> str:
    """A line for the request that is to be routed, then one per replica: KV in use, running and waiting requests."""
    state = run.fleet.state
    seen = dict(zip(SIGNALS, state.arrays["seen"], strict=True))
    capacity = dict(zip(CONSTANTS, state.arrays["constants"], strict=True))["kv_tokens"]
    r, n = run.fleet.next_request, len(run.workload)
    number = int(state.record["next_number"][0]) if run.workload.is_closed_loop else r
    what = f"{run.workload.num_prompt_tokens[number]} prompt tokens" if r < n else "all routed"
    lines = [f"t = {run.lane['clock_s'][0]:.3f} s   request {min(r + 1, n)} of {n}: {what}"]
    for i in range(run.fleet.fleet.num_replicas):
        used = 1.0 - seen["free_kv_tokens"][i] / capacity[i]
        bar = "#" * round(used * _BAR)
        lines.append(
            f"replica {i:<3} [{bar:<{_BAR}}] {100.0 * used:3.0f} % KV  {seen['num_running'][i]:4.0f} running "
            f"{seen['num_waiting'][i]:4.0f} waiting {seen['prefill_tokens'][i]:8,.0f} tokens to prefill"
        )
    return "\n".join(lines)


_WIDTH, _LINE, _EDGE, _LEFT, _RIGHT = 900, 34, 24, 130, 860
_MOST_REPLICAS = 64


def draw_picture(run: RoutingRun) -> NDArray[np.uint8]:
    """A strip of KV cache per replica, with its running and waiting requests in figures.

    Returns:
        (height, 900, 3) uint8; the height depends on the number of replicas alone.
    """
    state = run.fleet.state
    seen = dict(zip(SIGNALS, state.arrays["seen"], strict=True))
    capacity = dict(zip(CONSTANTS, state.arrays["constants"], strict=True))["kv_tokens"]
    count = min(run.fleet.fleet.num_replicas, _MOST_REPLICAS)
    canvas = Canvas(130 + _LINE * count, _WIDTH, ((92, _EDGE, 112 + _LINE * count, _WIDTH - _EDGE),))
    r, n = run.fleet.next_request, len(run.workload)
    canvas.text(24, _EDGE, f"{run.lane['clock_s'][0]:,.1f} s", INK, 4)
    canvas.text_to(40, _WIDTH - _EDGE, f"{r:,} of {n:,} requests routed", SOFT, 1)
    canvas.box(66, _EDGE, 70, _WIDTH - _EDGE, RULE)
    canvas.box(66, _EDGE, 70, _EDGE + round((_WIDTH - 2 * _EDGE) * r / n), INK)
    width = _RIGHT - _LEFT - 300
    for i in range(count):
        top = 110 + _LINE * i
        used = float(np.clip(1.0 - seen["free_kv_tokens"][i] / capacity[i], 0.0, 1.0))
        canvas.text(top, 40, f"{i}", INK, 2)
        canvas.text_to(top, _LEFT - 12, f"{100.0 * used:.0f} %", KV, 2)
        canvas.box(top - 4, _LEFT, top + 14, _LEFT + width, PAGE)
        canvas.box(top - 4, _LEFT, top + 14, _LEFT + round(used * width), KV)
        canvas.text_to(top + 1, _LEFT + width + 88, f"{seen['num_running'][i]:.0f} running", DECODE, 1)
        canvas.text_to(top + 1, _LEFT + width + 164, f"{seen['num_waiting'][i]:.0f} waiting", QUEUE, 1)
        canvas.text_to(top + 1, _RIGHT, f"{seen['prefill_tokens'][i]:,.0f} to prefill", SOFT, 1)
    return canvas.pixels
