"""The scenarios of the scoreboard: traffic x memory x load x model, each with slices to train and to test on.

Load is relative to capacity: "saturated" stretches arrivals so that a trace slice arrives in the time in which the
better of spf-headroom and fcfs-headroom serves it as one batch (`python -m experiments.board.saturate`); moderate is
0.75 of that rate, overloaded 1.4. Rollouts arrive all at once: their load is how many there are.
"""

from __future__ import annotations

from itertools import product

from infermax_gym.agents.scenario import TrainingScenario

MODELS = {"7b": "llama2-7b-a100", "70b": "llama3-70b-a100x4"}
LOADS = {"moderate": 0.75, "saturated": 1.0, "overloaded": 1.4}
MEMORIES = ("tight", "wide")
TRAFFICS = {
    "conv": "azure-conv",
    "code": "azure-code",
    "mooncake": "mooncake-conversation",
    "mixed": "mixed",
    "reasoning": "reasoning",
    "rollouts": "rollouts",
}
"""Short names of the presets."""

KV_TOKENS = {
    "conv": (20_000, 100_000),
    "code": (20_000, 100_000),
    "mooncake": (150_000, 500_000),
    "mixed": (30_000, 100_000),
    "reasoning": (30_000, 100_000),
    "rollouts": (30_000, 100_000),
}
"""Tight and wide, in tokens."""

SATURATED = {
    "conv": (1.51, 4.02, 1.30, 2.54),
    "code": (0.67, 1.68, 0.67, 1.63),
    "mooncake": (16.3, 18.3, 16.1, 17.1),
    "mixed": (1.37, 3.27, 1.30, 2.86),
    "reasoning": (1.29, 2.87, 1.10, 1.63),
}
"""Time scale of saturated arrivals: tight 7B, tight 70B, wide 7B, wide 70B."""

NUM_REQUESTS = {"conv": 600, "code": 600, "mooncake": 200, "mixed": 600, "reasoning": 400}
"""Requests of a trace slice."""

ROLLOUTS = {"moderate": (64, 128), "saturated": (200, 400), "overloaded": (400, 800)}
"""Rollouts of a trace slice, tight and wide memory."""

SLOS = {"conv": (2.0, 0.1), "code": (1.0, 0.1), "mooncake": (20.0, 0.2), "reasoning": (5.0, 0.1)}
"""TTFT and TPOT limits in seconds on 7B, doubled on 70B, which is slower; mixed brings its own, rollouts have none."""


def scenario_of(traffic: str, memory: str, load: str, model: str) -> TrainingScenario:
    """One scenario, by the keys of the tables above."""
    wide = MEMORIES.index(memory)
    time_scale, count = 1.0, NUM_REQUESTS.get(traffic, 0)
    if traffic == "rollouts":
        count = ROLLOUTS[load][wide]
    else:
        time_scale = SATURATED[traffic][2 * wide + list(MODELS).index(model)] / LOADS[load]
    ttft_s, tpot_s = SLOS.get(traffic, (None, None))
    slower = 2.0 if model == "70b" else 1.0
    return TrainingScenario(
        TRAFFICS[traffic],
        count,
        round(time_scale, 4),
        KV_TOKENS[traffic][wide],
        MODELS[model],
        ttft_slo_s=None if ttft_s is None else slower * ttft_s,
        tpot_slo_s=None if tpot_s is None else slower * tpot_s,
    )


SCENARIOS: dict[str, TrainingScenario] = {
    "-".join(key): scenario_of(*key) for key in product(TRAFFICS, MEMORIES, LOADS, MODELS)
}
"""All 72 scenarios by name, such as "conv-tight-saturated-7b"."""


def group_of(name: str) -> str:
    """Traffic, memory and model of a scenario, which its three loads have in common: "conv-tight-7b"."""
    traffic, memory, _, model = name.split("-")
    return f"{traffic}-{memory}-{model}"


def has_slos(name: str) -> bool:
    """Whether requests of a scenario have SLOs."""
    return not name.startswith("rollouts")
