"""The nine numbers of a batch that its duration may depend on.

For a batch of prefills p (chunk of c tokens behind m resident ones) and decodes d (one token behind m):

    phi = (1, T, 1[P>0], sum_p(c^2 + 2 c m), P, sum_p m, 1[D>0], sum_d m, D)

T counts all tokens of the batch, P and D its prefill and decode requests; m is what was resident before the
pass. Source: the linear batch-time model of INFERMAX (arXiv 2411.07447).
"""

from __future__ import annotations

ONE = 0
NUM_TOKENS = 1
HAS_PREFILL = 2
PREFILL_WORK = 3  # sum over prefills of c^2 + 2 c m: query-key pairs, twice
NUM_PREFILLS = 4
PREFILL_CONTEXT = 5  # sum over prefills of m
HAS_DECODE = 6
DECODE_CONTEXT = 7  # sum over decodes of m
NUM_DECODES = 8

NUM_FEATURES = 9

FEATURE_NAMES = (
    "one",
    "num_tokens",
    "has_prefill",
    "prefill_work",
    "num_prefills",
    "prefill_context",
    "has_decode",
    "decode_context",
    "num_decodes",
)
