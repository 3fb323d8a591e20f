"""The policies that a selector chooses between, and those that count as defaults."""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.table.shares import FCFS_SHARE, SPF_AGING_SHARE, SPF_SHARE, Shares
from infermax_gym.engine import Information, Policy
from infermax_gym.engine.policy import LengthEstimate, QueueOrder, Reserve, Victim, queue_weights, victim_weights

DEFAULTS = (
    "vllm",
    "vllm-0.13",
    "vllm-v0",
    "sarathi",
    "trt-max-utilization",
    "trt-no-evict",
    "lightllm",
    "lightllm-safe",
    "past-future",
    "orca",
)
"""What engines ship: vLLM's newest scheduler and its earlier ones, Sarathi-Serve, TensorRT-LLM, LightLLM, Orca."""

FORMS = (
    replace(
        POLICIES["lightllm"],
        name="sglang-form",
        reserve=Reserve.KNOWN,
        victim=Victim.KEY,
        victim_weights=victim_weights(num_generated_tokens=-1.0),
    ),
    replace(
        POLICIES["vllm-v0"],
        name="tgi-form",
        watermark=0.0,
        reserve=Reserve.TOTAL_ESTIMATE,
        estimate=LengthEstimate.BOUND,
        information=Information.BOUND,
        min_decodes_between_prefills=20,
    ),
)
"""What the knobs can say of two more engines. SGLang: chunks of prefills before decodes, admission by an optimistic
share of the bound, fewest generated retracted first; its falling ratio is not there (`sglang-fcfs` has it, in Python).
TGI: whole prompts, prompt and bound reserved, waiting requests after 20 decodes; its served ratio is not there."""

PUBLISHED = tuple(
    name
    for name, policy in POLICIES.items()
    if policy.information <= Information.BOUND and name not in ("fastertransformer", "trt-static-batch")
)
"""Every rule of the table that needs no predicted lengths; two that batch statically take too long."""

_HRRN = Shares(
    Policy(
        "hrrn-share",
        queue_order=QueueOrder.RESPONSE_RATIO,
        queue_weights=queue_weights(num_known_tokens=1.0),
        watermark=0.01,
    ),
    prefill_efficiency=0.9,
)
_V0 = POLICIES["vllm-v0"]


def _named(shares: Shares, prefill: float | None, decode: float | None = None, watermark: float = 0.01) -> Shares:
    name = f"{shares.name}-{prefill or 'all'}-{decode or 'all'}" + ("" if watermark == 0.01 else f"-{watermark}")
    base = replace(shares.base, name=name, watermark=watermark, source="", note="")
    return replace(shares, base=base, prefill_efficiency=prefill, decode_efficiency=decode)


def _whole_prompts(name: str, order: Policy) -> Shares:
    return Shares(replace(_V0, name=name, queue_order=order.queue_order, queue_weights=order.queue_weights))


EXPERTS: tuple[Shares, ...] = (
    Shares(POLICIES["vllm"]),
    Shares(_V0),
    _whole_prompts("vllm-v0-hrrn", _HRRN.base),
    _whole_prompts("vllm-v0-spf", SPF_SHARE.base),
    *(_named(SPF_SHARE, share) for share in (None, 0.95, 0.9, 0.8, 0.7)),
    *(_named(SPF_AGING_SHARE, share) for share in (None, 0.95, 0.9, 0.8)),
    *(_named(_HRRN, share) for share in (None, 0.95, 0.9, 0.8)),
    *(_named(FCFS_SHARE, share) for share in (0.95, 0.9, 0.8)),
    *(_named(SPF_SHARE, *shares) for shares in ((None, 0.33), (None, 0.5), (None, 0.67), (0.9, 0.67))),
    _named(SPF_AGING_SHARE, None, 0.67),
    _named(_HRRN, None, 0.5),
    _named(SPF_SHARE, None, None, 0.3),
    _named(SPF_SHARE, 0.8, None, 0.3),
    Shares(replace(POLICIES["least-attained-service"], name="las")),
    Shares(replace(POLICIES["least-attained-service"], name="las-0.8"), prefill_efficiency=0.8),
)
"""For mean and p99 latency."""

_NEWEST = Shares(
    Policy("newest-share", queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(arrival_s=-1.0), watermark=0.01)
)

GOODPUT_EXPERTS: tuple[Shares, ...] = (
    *EXPERTS,
    *(
        _named(_NEWEST, *shares)
        for shares in ((0.9, None), (0.7, None), (0.5, None), (0.9, 0.5), (0.7, 0.33), (None, 0.33))
    ),
    *(
        _named(SPF_SHARE, *shares)
        for shares in ((0.5, None), (0.7, 0.5), (0.7, 0.33), (0.5, 0.33), (0.9, 0.2), (0.7, 0.1))
    ),
)
"""For goodput: the same, the newest first, and fewer at once; under limits whoever waited too long is lost anyway."""
