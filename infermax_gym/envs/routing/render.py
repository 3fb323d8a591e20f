"""The fleet as text."""

from __future__ import annotations

from infermax_gym.cluster import CONSTANTS, SIGNALS
from infermax_gym.envs.routing.episode import RoutingRun

_BAR = 24


def draw_ansi(run: RoutingRun) -> str:
    """A line for the request that is to be routed, then one per replica: KV in use, running and waiting requests."""
    state = run.fleet.state
    seen = dict(zip(SIGNALS, state.arrays["seen"], strict=True))
    capacity = dict(zip(CONSTANTS, state.arrays["constants"], strict=True))["kv_tokens"]
    r, n = run.fleet.next_request, len(run.workload)
    what = f"{run.workload.num_prompt_tokens[r]} prompt tokens" if r < n else "all routed"
    lines = [f"t = {run.lane['clock_s'][0]:.3f} s   request {min(r + 1, n)} of {n}: {what}"]
    for i in range(run.fleet.fleet.num_replicas):
        used = 1.0 - seen["free_kv_tokens"][i] / capacity[i]
        bar = "#" * round(used * _BAR)
        lines.append(
            f"replica {i:<3} [{bar:<{_BAR}}] {100.0 * used:3.0f} % KV  {seen['num_running'][i]:4.0f} running "
            f"{seen['num_waiting'][i]:4.0f} waiting {seen['prefill_tokens'][i]:8,.0f} tokens to prefill"
        )
    return "\n".join(lines)
