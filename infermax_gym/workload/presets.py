"""Workloads that come with the package, and `make_workload`, which draws requests from one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.arrivals import AllAtOnce, Arrivals, Poisson
from infermax_gym.workload.conversations import Conversations
from infermax_gym.workload.fitted import fitted_arrivals, fitted_lengths
from infermax_gym.workload.lengths import Joint, Lengths, LogNormal, Mixture, Uniform
from infermax_gym.workload.reader import check_timing, retimed, workload_stream
from infermax_gym.workload.workload import Workload, WorkloadError

UNIFORM = "uniform:"
_MOST_REQUESTS = 1 << 40  # far beyond any memory, and within what NumPy can ask for
"""How the name of a workload with uniform lengths begins."""


@dataclass(frozen=True)
class RequestClass:
    """A kind of request in a mixture, with the limits its users expect.

    Attributes:
        name: of the SLO class.
        ttft_slo_s: limit on the time to first token.
        tpot_slo_s: limit on the time per output token.
    """

    name: str
    ttft_slo_s: float
    tpot_slo_s: float


@dataclass(frozen=True)
class WorkloadPreset:
    """A recipe for requests.

    Attributes:
        name: kebab-case.
        note: what the traffic is, in one line.
        arrivals: makes the arrival process (a function, so that nothing is read before it is needed).
        lengths: makes the length distribution.
        classes: of the components of a mixture, in its order; empty if all requests are alike.
        tenants: whose the components of a mixture are, in its order; empty if all are one tenant's.
        conversations: if given, arrivals are the beginnings of conversations, lengths those of messages and answers.
    """

    name: str
    note: str
    arrivals: Callable[[], Arrivals]
    lengths: Callable[[], Lengths]
    classes: tuple[RequestClass, ...] = ()
    tenants: tuple[str, ...] = ()
    conversations: Conversations | None = None


# Short prompts, long and heavy-tailed outputs. The largest output keeps a request within 20k tokens of KV memory.
_REASONING = Joint(
    prompt=LogNormal(mean=150.0, sigma=0.5, low=8, high=2_048),
    output=LogNormal(mean=1_500.0, sigma=1.0, low=1, high=16_384),
)


_TURNS = Joint(
    prompt=LogNormal(mean=150.0, sigma=1.0, low=4, high=4_096),
    output=LogNormal(mean=250.0, sigma=0.8, low=4, high=2_048),
)


def _mixed() -> Mixture:
    return Mixture((0.5, 0.3, 0.2), (fitted_lengths("azure-conv"), fitted_lengths("azure-code"), _REASONING))


def _three_tenants() -> Mixture:
    return Mixture((0.75, 0.2, 0.05), (fitted_lengths("azure-conv"), fitted_lengths("azure-conv"), _REASONING))


_MIXED_CLASSES = (
    RequestClass("chat", ttft_slo_s=2.0, tpot_slo_s=0.1),
    RequestClass("code", ttft_slo_s=1.0, tpot_slo_s=0.1),
    RequestClass("reasoning", ttft_slo_s=5.0, tpot_slo_s=0.2),
)


def _fitted(name: str, note: str, arrivals: Callable[[], Arrivals] | None = None) -> WorkloadPreset:
    process = arrivals or functools.partial(fitted_arrivals, name)
    return WorkloadPreset(name, note, process, functools.partial(fitted_lengths, name))


PRESETS: dict[str, WorkloadPreset] = {
    preset.name: preset
    for preset in (
        _fitted("azure-conv", "chat: medium prompts, outputs of some 200 tokens; fitted to Azure 2023 conversation"),
        _fitted("azure-code", "code completion: long prompts, short outputs, bursts; fitted to Azure 2023 code"),
        _fitted("mooncake-conversation", "chat with very long contexts; fitted to Mooncake's conversation trace"),
        _fitted(
            "long-document",
            "summaries of papers, Poisson arrivals; lengths fitted to arXiv summarisation",
            lambda: Poisson(1.0),
        ),
        WorkloadPreset(
            "reasoning",
            "short prompts, long heavy-tailed outputs (log-normal, mean 1,500 tokens, sigma 1), Poisson arrivals",
            lambda: Poisson(1.0),
            lambda: _REASONING,
        ),
        WorkloadPreset(
            "rollouts",
            "the lengths of reasoning as one batch, all at time 0, as in reinforcement learning of a model",
            AllAtOnce,
            lambda: _REASONING,
        ),
        WorkloadPreset(
            "mixed",
            "50 % chat, 30 % code, 20 % reasoning with limits of their own, Poisson arrivals",
            lambda: Poisson(3.0),
            _mixed,
            _MIXED_CLASSES,
        ),
        WorkloadPreset(
            "tenants",
            "three tenants, Poisson arrivals: one sends 75 % of all chat, one 20 %, one a few reasoning requests",
            lambda: Poisson(4.0),
            _three_tenants,
            tenants=("flood", "steady", "thinker"),
        ),
        WorkloadPreset(
            "conversations",
            "chats of 4 turns on average with 8 applications (tenants), each with a system prompt: shared prefixes",
            lambda: Poisson(1.0),
            lambda: _TURNS,
            conversations=Conversations(),
        ),
    )
}
"""Every preset by name."""


def uniform_preset(text: str) -> WorkloadPreset:
    """The preset that `uniform:I,O` or `uniform:I,O,R` means: all at time 0, lengths uniform in [R L, L], L of I and O.

    Benchmarks of serving engines draw such lengths: R = 0.8 in InferenceMAX, 1 (all alike) if it is left out.

    Raises:
        WorkloadError: the text is not of this form, or a number is out of range.
    """
    error = WorkloadError(
        f"workload {text!r}: expected {UNIFORM}PROMPT,OUTPUT or {UNIFORM}PROMPT,OUTPUT,RATIO with whole numbers of "
        "tokens, at least 1, and a ratio in (0, 1]"
    )
    parts = text.removeprefix(UNIFORM).split(",")
    try:
        longest = tuple(int(part) for part in parts[:2])
        ratio = float(parts[2]) if len(parts) == 3 else 1.0
    except ValueError:
        raise error from None
    if len(parts) not in (2, 3) or min(longest) < 1 or not 0.0 < ratio <= 1.0:
        raise error
    prompt, output = (Uniform(max(1, int(ratio * most)), most) for most in longest)
    note = f"all at time 0; prompts of {prompt.low} to {prompt.high} tokens, outputs of {output.low} to {output.high}"
    return WorkloadPreset(text, note, AllAtOnce, lambda: Joint(prompt, output))


def make_workload(
    name: str | WorkloadPreset, num_requests: int, *, seed: int, rate: float | None = None, time_scale: float = 1.0
) -> Workload:
    """Draw requests from a preset.

    The same arguments give the same bytes in every process. Without `rate`, a shorter workload is the beginning of
    a longer one with the same seed.

    Args:
        name: a key of `PRESETS`, what `uniform_preset` reads, or a preset that is not among them.
        num_requests: how many, 1 to 2**40.
        seed: of the `workload` stream.
        rate: stretch the arrivals so that their mean rate is exactly this, in requests per second.
        time_scale: factor on the arrival times (instead of `rate`); below 1 raises the load.

    Raises:
        WorkloadError: there is no such preset, or an argument is out of range.

    Example:
        >>> from infermax_gym.workload import make_workload
        >>> len(make_workload("azure-conv", 100, seed=0, rate=6.0))
        100
    """
    if isinstance(name, str) and name.startswith(UNIFORM):
        name = uniform_preset(name)
    if isinstance(name, str) and name not in PRESETS:
        raise WorkloadError(f"no preset is called {name!r}; presets are {', '.join(PRESETS)}")
    if num_requests < 1:
        raise WorkloadError(f"num_requests must be at least 1, got {num_requests}")
    if num_requests > _MOST_REQUESTS:
        raise WorkloadError(f"num_requests must be at most {_MOST_REQUESTS:,}, got {num_requests}")
    check_timing(time_scale, rate)
    preset = PRESETS[name] if isinstance(name, str) else name
    drawn = {"preset": preset.name, "num_requests": num_requests, "seed": seed, "time_scale": time_scale, "rate": rate}
    workload = Workload(**_requests(preset, workload_stream(seed), num_requests), name=preset.name, metadata=drawn)
    return retimed(workload, time_scale, rate)


def _requests(preset: WorkloadPreset, rng: np.random.Generator, num_requests: int) -> dict[str, Any]:
    """`Workload` arguments: what is drawn."""
    if preset.conversations is not None:
        return preset.conversations.sample(rng, num_requests, preset.arrivals(), preset.lengths())
    arrivals_rng, lengths_rng = rng.spawn(2)
    lengths = preset.lengths().sample(lengths_rng, num_requests)
    return {
        "arrival_s": preset.arrivals().sample(arrivals_rng, num_requests),
        "num_prompt_tokens": lengths.num_prompt_tokens,
        "num_output_tokens": lengths.num_output_tokens,
        **_class_fields(preset, lengths.component),
    }


def _class_fields(preset: WorkloadPreset, component: NDArray[np.int64]) -> dict[str, Any]:
    """`Workload` arguments that say whose each request is and to which class it belongs."""
    whose = {"tenant": component, "tenant_names": preset.tenants} if preset.tenants else {}
    if not preset.classes:
        return whose
    return {
        **whose,
        "slo_class": component,
        "slo_class_names": tuple(item.name for item in preset.classes),
        "ttft_slo_s": np.array([item.ttft_slo_s for item in preset.classes])[component],
        "tpot_slo_s": np.array([item.tpot_slo_s for item in preset.classes])[component],
    }
