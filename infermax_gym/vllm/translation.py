"""Which policies vLLM's scheduler can follow, and what it does to them.

vLLM serves all running requests in one list, admits waiting ones behind them, frees a victim's blocks when a running
request lacks some, admits nobody after a preemption, and ends serving when a request preempts itself. Order, admission,
reservations and victims can be decided from outside; the rest of a policy must be as vLLM has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from infermax_gym.engine.policy import (
    NO_LIMIT,
    VICTIM_FEATURES,
    OnMisfit,
    PhaseOrder,
    Policy,
    PreemptMode,
    QueueOrder,
    RunOrder,
    VictimPool,
)
from infermax_gym.vllm.errors import PlugInError

_RECLAIM = VICTIM_FEATURES.index("reclaim_value")

_CANNOT: tuple[tuple[str, Callable[[Policy], bool], str], ...] = (
    ("phase_order", lambda p: p.phase_order == PhaseOrder.PREFILL_FIRST, "vLLM serves running requests first"),
    ("hybrid", lambda p: not p.hybrid, "vLLM mixes prefills and decodes"),
    ("queue_order", lambda p: p.queue_order == QueueOrder.FAIR, "service per tenant is not counted in vLLM"),
    ("run_order", lambda p: p.run_order == RunOrder.TOKEN_DEADLINE, "deadlines of tokens are not kept in vLLM"),
    ("chunking", lambda p: not p.chunking, "vLLM cuts prefills"),
    ("prefill_share", lambda p: p.prefill_share < 1.0 and p.phase_order == PhaseOrder.ONE_LIST, "needs DECODE_FIRST"),
    ("min_chunk", lambda p: p.min_chunk > 0, "vLLM takes what is left of the budget"),
    ("prefill_interval", lambda p: p.prefill_interval > 1, "prefills are held by vLLM's own flag, or not at all"),
    ("max_iteration_s", lambda p: p.max_iteration_s > 0.0, "vLLM cuts prefills by tokens, not by time"),
    ("on_misfit", lambda p: p.on_misfit == OnMisfit.SKIP, "vLLM ends admission at the first that does not fit"),
    ("victim_weights", lambda p: p.victim_weights[_RECLAIM] != 0.0, "reclaim_value is not counted in vLLM"),
    ("victim_pool", lambda p: p.victim_pool == VictimPool.ALL, "vLLM preempts only requests not yet served"),
    ("evict_share", lambda p: p.evict_share > 0.0, "vLLM preempts one request at a time"),
    ("pin_after", lambda p: p.pin_after < NO_LIMIT, "vLLM's victims are not pinned"),
    ("preempt_for_waiting", lambda p: p.preempt_for_waiting, "vLLM preempts only for running requests"),
    ("preempt_mode", lambda p: p.preempt_mode != PreemptMode.RECOMPUTE, "vLLM recomputes"),
    ("admit_when_empty_only", lambda p: p.admit_when_empty_only, "vLLM batches continuously"),
    ("min_waiting", lambda p: p.min_waiting > 0, "who is still to arrive is not known"),
    ("release_at_batch_end", lambda p: p.release_at_batch_end, "vLLM frees blocks at once"),
    ("delay_factor", lambda p: p.delay_factor > 0.0, "vLLM does not hold admission back"),
    ("min_decodes_between_prefills", lambda p: p.min_decodes_between_prefills > 0, "vLLM admits in every iteration"),
    ("hold_iterations", lambda p: p.hold_iterations > 0.0, "vLLM does not hold decodes back"),
    ("quantum_s", lambda p: p.quantum_s > 0.0, "there are no levels in vLLM"),
    ("quantum_iterations", lambda p: p.quantum_iterations > 0, "there are no levels in vLLM"),
    ("starvation_s", lambda p: p.starvation_s > 0.0, "there are no levels in vLLM"),
    ("starvation_iterations", lambda p: p.starvation_iterations > 0, "there are no levels in vLLM"),
    ("refresh_tokens", lambda p: p.refresh_tokens > 0, "predictions come once, with the request"),
)


def obstacle(policy: Policy) -> str | None:
    """The first knob that vLLM cannot follow, its value and why, in one line; None if it can follow all."""
    for knob, hinders, why in _CANNOT:
        if hinders(policy):
            value = getattr(policy, knob)
            shown = getattr(value, "name", value)
            return f"policy {policy.name!r} cannot run inside vLLM: {knob} is {shown}, but {why}"
    return None


def as_served(policy: Policy) -> Policy:
    """The policy as vLLM follows it: the one to simulate beside a server.

    It differs from `policy` in two knobs at most, which are vLLM's own: nobody is admitted in an iteration that
    preempted somebody, and a request that preempts itself ends the pass over the running list.

    Raises:
        PlugInError: vLLM cannot follow it; names the knob.

    Example:
        >>> from infermax_gym.baselines.policies import POLICIES
        >>> as_served(POLICIES["spf-headroom"]).admit_after_preemption
        False
    """
    problem = obstacle(policy)
    if problem is not None:
        raise PlugInError(problem)
    return replace(policy, self_preemption_ends=True, admit_after_preemption=False)
