"""A trained network at kernel speed: the greedy choice of `ScorerNetwork`, compiled, inside the compiled environment.

Only legal targets are scored, one after another, in single precision as in torch; sums run in another order, so log
probabilities agree to rounding, and choices wherever two are not equal to the last bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import compiled, inlined
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES, RUNNING_FEATURES, WAITING_FEATURES
from infermax_gym.envs.scheduling.observe import observe
from infermax_gym.envs.scheduling.step import act, go_on
from infermax_gym.envs.status import LOG_FULL, RUNNING_ON

if TYPE_CHECKING:
    from infermax_gym.agents.networks import Scaled, ScorerNetwork, SlotScorer

_G, _FW, _FR = len(ENGINE_FEATURES), len(WAITING_FEATURES), len(RUNNING_FEATURES)

Array = NDArray[np.float32]


class Scorer(NamedTuple):
    """Weights of a `SlotScorer`; matrices are (inputs, outputs)."""

    slot: Array
    slot_bias: Array
    context: Array
    hidden: Array
    hidden_bias: Array
    score: Array
    score_bias: Array


class Weights(NamedTuple):
    """Weights of the deciding part of a `ScorerNetwork`, and its chunk budgets."""

    context_1: Array
    context_1_bias: Array
    context_2: Array
    context_2_bias: Array
    run: Scorer
    admit: Scorer
    preempt: Scorer
    kind_1: Array
    kind_1_bias: Array
    kind_2: Array
    kind_2_bias: Array
    levels: Array


def weights_of(network: ScorerNetwork) -> Weights:
    """The weights of a network, laid out for the compiled choice; gains of features become part of them."""
    context: Any = network.context[0]
    first, second = context[0], context[2]
    kind_1, kind_2 = network.kind[0], network.kind[2]
    return Weights(
        *_linear(first, network.engine),
        *_linear(second),
        _scorer(network.run),
        _scorer(network.admit, network.waiting),
        _scorer(network.preempt, network.running),
        *_linear(kind_1),
        *_linear(kind_2),
        network.levels.numpy().reshape(-1).astype(np.float32),  # type: ignore[operator]
    )


def _linear(layer: Any, inputs: Scaled | None = None) -> tuple[Array, Array]:
    """(inputs, outputs) weights and biases of a layer behind scaled inputs."""
    weight = np.ascontiguousarray(layer.weight.detach().numpy().T.astype(np.float32))
    if inputs is not None:
        weight *= inputs.gain.numpy()[:, None]
    bias = np.zeros(weight.shape[1], np.float32) if layer.bias is None else layer.bias.detach().numpy().copy()
    return weight, bias


def _scorer(scorer: SlotScorer, inputs: Scaled | None = None) -> Scorer:
    context, _ = _linear(scorer.context)
    return Scorer(*_linear(scorer.slot, inputs), context, *_linear(scorer.hidden), *_linear(scorer.score))


@inlined
def _apply(x: Any, weight: Any, out: Any) -> None:
    """Add x @ weight to out."""
    for i in range(x.size):
        xi = x[i]
        if xi != 0.0:
            for j in range(out.size):
                out[j] += xi * weight[i, j]


@inlined
def _relu(x: Any) -> None:
    for j in range(x.size):
        x[j] = max(x[j], np.float32(0.0))


@compiled
def _best_target(
    slots: Any, num_features: int, mask: Any, scorer: Any, context: Any, base: Any, hidden: Any, pooled: Any
) -> Any:
    """The legal target with the highest score, -1 if none is legal.

    Args:
        slots: (S * num_features,) float32.
        num_features: features of a slot.
        mask: (S,) int8.
        scorer: its weights.
        context: (H,) float32.
        base: (H,) float32, scratch.
        hidden: (H,) float32, scratch.
        pooled: (H,) float32, out: hidden features weighted by the targets' probabilities.
    """
    base[:] = scorer.slot_bias
    _apply(context, scorer.context, base)
    pooled[:] = 0.0
    best = -1
    best_score = np.float32(-np.inf)
    total = np.float32(0.0)
    first = np.empty_like(base)
    for i in range(mask.size):
        if not mask[i]:
            continue
        first[:] = base
        _apply(slots[i * num_features : (i + 1) * num_features], scorer.slot, first)
        _relu(first)
        hidden[:] = scorer.hidden_bias
        _apply(first, scorer.hidden, hidden)
        _relu(hidden)
        score = scorer.score_bias[0]
        for j in range(hidden.size):
            score += hidden[j] * scorer.score[j, 0]
        if score > best_score:
            # Keep the running softmax sums relative to the largest score so far.
            scale = np.float32(math.exp(best_score - score)) if best >= 0 else np.float32(0.0)
            total = total * scale
            for j in range(pooled.size):
                pooled[j] *= scale
            best = i
            best_score = score
        share = np.float32(math.exp(score - best_score))
        total += share
        for j in range(pooled.size):
            pooled[j] += share * hidden[j]
    if best >= 0:
        for j in range(pooled.size):
            pooled[j] /= total
    return best


@compiled
def greedy(observation: Any, mask: Any, weights: Any, num_waiting_slots: int) -> Any:
    """The action that `ScorerNetwork.greedy` takes.

    Args:
        observation: (N,) float32.
        mask: (A,) int8.
        weights: of the network.
        num_waiting_slots: W.
    """
    width = weights.context_2_bias.size
    num_chunk_budgets = weights.levels.size
    work = np.empty((3, width), np.float32)
    pooled = np.empty(4 * width, np.float32)
    context = pooled[:width]
    work[0] = weights.context_1_bias
    _apply(observation[:_G], weights.context_1, work[0])
    _relu(work[0])
    context[:] = weights.context_2_bias
    _apply(work[0], weights.context_2, context)
    _relu(context)
    first_running = _G + num_waiting_slots * _FW
    end_admit = num_chunk_budgets + num_waiting_slots
    level = _best_target(
        weights.levels, 1, mask[:num_chunk_budgets], weights.run, context, work[0], work[1], pooled[width : 2 * width]
    )
    admit = _best_target(
        observation[_G:first_running],
        _FW,
        mask[num_chunk_budgets:end_admit],
        weights.admit,
        context,
        work[0],
        work[1],
        pooled[2 * width : 3 * width],
    )
    victim = _best_target(
        observation[first_running:],
        _FR,
        mask[end_admit:],
        weights.preempt,
        context,
        work[0],
        work[1],
        pooled[3 * width :],
    )
    work[2] = weights.kind_1_bias
    _apply(pooled, weights.kind_1, work[2])
    _relu(work[2])
    logits = weights.kind_2_bias.copy()
    _apply(work[2], weights.kind_2, logits)
    best_kind = -1
    for kind, target in enumerate((level, admit, victim)):
        if target >= 0 and (best_kind < 0 or logits[kind] > logits[best_kind]):
            best_kind = kind
    if best_kind == 0:
        return level
    return num_chunk_budgets + admit if best_kind == 1 else end_admit + victim


@compiled
def play_on(engines: Any, lanes: Any, observation: Any, mask: Any, weights: Any, most_decisions: int) -> Any:
    """Decide greedily until the episode ends or the log is full; returns the lane's status.

    Args:
        engines: (1,) CORE.
        lanes: (1,) LANE.
        observation: (1, N) float32, up to date.
        mask: (1, A) int8, up to date.
        weights: of the network.
        most_decisions: of the episode; from there on the environment's fallback decides.
    """
    s = engines[0]
    v = lanes[0]
    while v.status == RUNNING_ON:
        if v.num_decisions < most_decisions:
            act(s, v, greedy(observation[0], mask[0], weights, v.num_waiting_slots))
        else:
            act(s, v, -1)
        if v.status == RUNNING_ON:
            observe(s, v, observation[0], mask[0])
    return v.status


@compiled
def rollout(
    engines: Any,
    lanes: Any,
    observation: Any,
    mask: Any,
    weights: Any,
    action: int,
    until_s: float,
    most_decisions: int,
) -> Any:
    """Take an action, then decide greedily until a moment; returns the request-seconds in the system up to it.

    The lane is used up: what its log would hold is dropped.

    Args:
        engines: (1,) CORE.
        lanes: (1,) LANE, with a decision to take.
        observation: (1, N) float32, scratch.
        mask: (1, A) int8, scratch.
        weights: of the network.
        action: the one that is measured.
        until_s: the moment on the simulated clock; inf: the end of the episode.
        most_decisions: from there on the environment's fallback decides.
    """
    s = engines[0]
    v = lanes[0]
    before = s.system_seconds
    v.time_limit_s = until_s
    act(s, v, action)
    last = v.num_decisions + most_decisions
    while v.status == RUNNING_ON or v.status == LOG_FULL:
        if v.status == LOG_FULL:
            s.num_gaps = 0
            go_on(s, v)
        elif v.num_decisions < last:
            observe(s, v, observation[0], mask[0])
            act(s, v, greedy(observation[0], mask[0], weights, v.num_waiting_slots))
        else:
            act(s, v, -1)
    cost = s.system_seconds - before
    if s.clock_s > until_s:  # the last iteration went beyond, with those that finished at its end
        cost -= (s.num_waiting + s.num_running + s.finished_now) * (s.clock_s - until_s)
    return cost
