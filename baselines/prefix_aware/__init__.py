"""Schedulers that look at the prefix cache: SGLang's, and two that bound how long its order makes others wait.

They are no policies of the table, since their keys change with every block that is cached or forgotten; they are
written in Python (`orders`: who is next; `sglang`: admission, chunks, retraction). Without `prefix_caching` their
orders are FCFS, that of DLPM within a tenant.
"""

from infermax_gym.baselines.prefix_aware.policies import PREFIX_AWARE
from infermax_gym.baselines.prefix_aware.sglang import Sglang

__all__ = ["PREFIX_AWARE", "Sglang"]
