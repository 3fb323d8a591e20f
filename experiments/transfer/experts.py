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


def _aging(weight: float) -> Shares:
    """Shortest prefill first with so many seconds of prefill as credit per second waited."""
    weights = queue_weights(prefill_s=1.0, arrival_s=weight)
    base = replace(SPF_AGING_SHARE.base, name=f"spf-aging-{weight}", queue_weights=weights)
    return replace(SPF_AGING_SHARE, base=base)


def _whole_prompts(name: str, order: Policy) -> Shares:
    return Shares(replace(_V0, name=name, queue_order=order.queue_order, queue_weights=order.queue_weights))


_FIRST: tuple[Shares, ...] = (
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
_NEWEST = Shares(
    Policy("newest-share", queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(arrival_s=-1.0), watermark=0.01)
)

GOODPUT_EXPERTS: tuple[Shares, ...] = (
    *_FIRST,
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

_WHOLE = Policy("whole", chunking=False, watermark=0.01)
"""Decodes beside whole prompts, whatever their length: what Orca gains by where experts of a mixture are read once for
many tokens, without the memory that Orca reserves."""

_FAIRER: tuple[Shares, ...] = (
    _named(_HRRN, 0.97),
    _named(_HRRN, 0.95, 0.8),
    _named(_aging(0.01), 0.95),
    *(_named(_aging(0.03), share) for share in (0.95, 0.97, None)),
    _named(_aging(0.1), 0.95),
    Shares(
        replace(_WHOLE, name="whole-hrrn", queue_order=_HRRN.base.queue_order, queue_weights=_HRRN.base.queue_weights)
    ),
    Shares(
        replace(
            _WHOLE,
            name="whole-aging-0.03",
            queue_order=QueueOrder.LINEAR,
            queue_weights=_aging(0.03).base.queue_weights,
        )
    ),
)

MEASURED: tuple[Shares, ...] = (*GOODPUT_EXPERTS, *_FAIRER)
"""Everybody who plays the training scenarios."""

_RISKY = ("vllm-v0-spf", "spf-share-0.7-all", "spf-aging-share-0.8-all", "hrrn-share-0.8-all", "las-0.8")


def _is_risky(expert: Shares) -> bool:
    """Few decodes at once, or a small budget, can cost several times the default's latency where they do not suit."""
    capped = expert.decode_efficiency is not None and expert not in _FAIRER
    return capped or expert.name in _RISKY or (expert.base.watermark == 0.3 and expert.prefill_efficiency is not None)


EXPERTS: tuple[Shares, ...] = tuple(one for one in (*_FIRST, *_FAIRER) if not _is_risky(one))
"""For mean and p99 latency: several degrees of fairness, and budgets that are never far from the engine's own."""
