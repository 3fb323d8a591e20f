"""The table of routers: every load balancer as a policy, with its source.

What a policy sees, and how ties are broken, says `infermax_gym.cluster.router`; docs/cluster.md compares the policies.
None but the last knows output lengths.
"""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.cluster import Router, Score, signal_weights
from infermax_gym.engine import Information

_OUTSTANDING = signal_weights(num_waiting=1.0, num_running=1.0)

RANDOM = Router(
    name="random",
    num_choices=1,
    source="Vidur (random global scheduler)",
    note="Needs no signal; queues differ by chance.",
)
ROUND_ROBIN = Router(
    name="round-robin",
    source="Vidur, Llumnix (round robin); here: no signals, so ties alone decide, and ties go round",
    note="Needs no signal; blind to sizes.",
)
LEAST_OUTSTANDING = Router(
    name="least-outstanding",
    weights=_OUTSTANDING,
    source="textbook join-the-shortest-queue: waiting and running requests",
    note="Hard to beat where requests are alike; blind to sizes.",
)
LEAST_PENDING = Router(
    name="least-pending",
    weights=signal_weights(num_waiting=1.0),
    source="Vidur's LOR, which counts queued requests only",
    note="Without queues it is round robin, whatever runs.",
)
POWER_OF_TWO = Router(
    name="power-of-two",
    weights=_OUTSTANDING,
    num_choices=2,
    source="two random choices (Mitzenmacher 2001); SGLang's gateway; load: waiting and running requests",
    note="Asks two replicas only; herds least on old signals.",
)
QUEUED_TOKENS = Router(
    name="queued-tokens",
    weights=signal_weights(prefill_tokens=1.0),
    source="join the shortest queue in tokens still to be prefilled (Llumnix: miss waiting tokens)",
    note="Best for TTFT while memory is no limit; blind to decodes.",
)
KV_SHARE = Router(
    name="kv-share",
    score=Score.KV_SHARE,
    source="Llumnix kv_blocks_ratio: (used + waiting demand) / capacity; demand in tokens, not rounded to blocks",
    note="Right where memory is the limit; slow to see short prompts pile up.",
)
LLUMNIX = Router(
    name="llumnix",
    score=Score.FREENESS,
    source="Llumnix (2406.03243) dispatch by freeness: (free KV - waiting demand) / requests there, the most wins; "
    "demand in tokens, of all that wait; without migration",
    note="Remaining steps of the batch there; counts memory and batch alike.",
)
VLLM_DP = Router(
    name="vllm-dp",
    weights=signal_weights(num_waiting=4.0, num_running=1.0),
    source="vLLM data parallel: 4 x waiting + running (its statistics are 0.1 s old: staleness_s=0.1)",
    note="A queue repels four times as much as a batch.",
)
LMETRIC = Router(
    name="lmetric",
    score=Score.PREFILL_BY_BATCH,
    uses_prefixes=True,
    source="LMetric (2603.15202): new prefill tokens x batch size. Our reading: tokens queued there and the request's, "
    "less what is presumably cached there, times waiting and running requests",
    note="A product needs no weights; an idle replica always wins.",
)
LLM_D = Router(
    name="llm-d",
    score=Score.NORMALISED,
    uses_prefixes=True,
    source="llm-d and the Kubernetes Gateway API inference extension: the weighted sum of normalised scores, the most "
    "wins: matched share of the prompt, queue (least waiting 1, most waiting 0), free share of KV. Weights 2, 1, 1 as "
    "inference-sim sets them; deployments set others (3, 2, 2 for example). Deviates: ties go round, not at random; "
    "the map is by trace hashes, and forgets by tokens sent",
    note="Three weights to tune; one waiting request more weighs as much as all of the KV. Sees no output lengths.",
)
PREBLE = Router(
    name="preble",
    score=Score.E2,
    uses_prefixes=True,
    source="Preble (2407.00023), E2: where more of the prompt is cached than must be computed, the lightest of the "
    "replicas with the longest match (exploit); else the least of load in the last 3 minutes, eviction and this "
    "prefill (explore). The costs are our reading, in seconds at the prefill rate: load is the new prompt tokens sent "
    "there, without decodes; eviction, the tokens that its cache lacks for the new ones, however often they were hit. "
    "Deviates: hot prefixes are not replicated, nothing is redirected, and replicas keep their own policies",
    note="Needs no signal; a popular prefix stays where it is, however full it gets there.",
)
D2LPM = Router(
    name="d2lpm",
    score=Score.DEFICIT,
    uses_prefixes=True,
    source="D2LPM (2501.14312), its router: the longest match among the replicas where the tenant has credit; where it "
    "has none anywhere, each replica grants a quantum more. Deviates: new prompt tokens are charged, output tokens are "
    "not, as the router does not learn of them; the quantum, 16,384 tokens, is ours; replicas keep their own policies",
    note="Needs no signal; each tenant's prompt work differs by a quantum at most, and one prompt, between replicas.",
)
PREFIX_AWARE = Router(
    name="prefix-aware",
    score=Score.PREFIX,
    uses_prefixes=True,
    source="SGLang's cache-aware rule, as its router has it: above a difference of 64 requests and a ratio of 1.5 the "
    "emptiest; else the longest match, if it is over 0.3 of the prompt; else the replica with the smallest tree. "
    "Deviates: the map is by trace hashes, and forgets by tokens sent",
    note="Keeps conversations together; without shared prefixes it balances prompt tokens sent, not load.",
)
SAL = Router(
    name="sal",
    score=Score.START_DELAY,
    source="after SAL of 'Is the GPU Half-Empty or Half-Full?' (2410.17840). Sourced: it is token-aware and "
    "a drop-in. Its formula is not public; our reading is the estimated delay until the request can start, "
    "max(tokens to prefill / prefill rate, max(0, prompt - free KV) / KV release rate), the least wins. Rates: "
    "an iteration of one prefill at the full token budget; tokens of finished requests per busy second, before "
    "the first the prefill rate",
    note="Watches compute and memory; equals queued-tokens while memory is free.",
)
SESSION_AFFINITY = Router(
    name="session-affinity",
    weights=_OUTSTANDING,
    sticky_s=300.0,
    source="session affinity as in vLLM PR 51384 and ROCm ATOM PR 1699 (dp_sticky): a request goes where the last one "
    "of its session went, unless that was 5 minutes ago; first ones where the fewest requests are",
    note="Conversations find their KV again without a map of prefixes; long ones pile up where they began.",
)

BLOCK = Router(
    name="block",
    score=Score.AHEAD,
    source="Block (2508.03611): the replica where a simulation of each predicts the request to finish first. Deviates: "
    "no length is predicted; outputs are taken to be as long as the mean of those that finished there and were longer "
    "than what is generated, 256 tokens before any",
    note="Sees memory, batches and queues at once; simulates every replica at every arrival.",
)
BLOCK_PREDICTED = replace(
    BLOCK,
    name="block-predicted",
    information=Information.PREDICTED,
    prediction_sigma=0.5,
    source="Block (2508.03611), with a prediction of each output length, as in the paper; ours are noisy, sigma 0.5",
    note="Block, told how long outputs will be.",
)

_TABLE = (
    RANDOM,
    ROUND_ROBIN,
    LEAST_OUTSTANDING,
    LEAST_PENDING,
    POWER_OF_TWO,
    QUEUED_TOKENS,
    KV_SHARE,
    LLUMNIX,
    VLLM_DP,
    LMETRIC,
    LLM_D,
    PREBLE,
    D2LPM,
    SAL,
    SESSION_AFFINITY,
    PREFIX_AWARE,
    BLOCK,
    BLOCK_PREDICTED,
)

ROUTERS: dict[str, Router] = {row.name: row for row in _TABLE}
"""Every policy by name."""
