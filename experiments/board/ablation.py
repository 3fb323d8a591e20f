"""What PPO's parts are worth: each is taken away in turn, and the network is trained anew.

    python -m experiments.board.ablation --decisions 800000 --seeds 2

prints a table of experiments/NOTES.md: mean latency on held-out trace slices of the scenario `SATURATED_CHAT`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.board.tables import table
from infermax_gym.agents.networks import NEVER, ScorerNetwork
from infermax_gym.agents.play import play, play_network
from infermax_gym.agents.ppo import PLAIN, PpoSettings, make_ppo, network_of
from infermax_gym.agents.recipes import VALIDATION_SEED, Recipe, environment, learner, train
from infermax_gym.agents.scenario import SATURATED_CHAT, TEST, TRAIN, TraceSlice, trace_slices
from infermax_gym.agents.training import train_ppo
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Episode
from infermax_gym.envs.scheduling.layout import WAITING_FEATURES, Kind

SCENARIO = SATURATED_CHAT
TEACHER = "spf-headroom"
_NEVER_BIAS = -1e4

Change = Callable[[ScorerNetwork], None]


def blind_to(*features: str) -> Change:
    """Without some features of the waiting slots: their weights are zero and stay so."""

    def change(network: ScorerNetwork) -> None:
        places = [WAITING_FEATURES.index(name) for name in features]
        for layer in (network.admit.slot, network.value_head.waiting):
            keep = torch.ones_like(layer.weight)
            keep[:, places] = 0.0
            with torch.no_grad():
                layer.weight *= keep
            layer.weight.register_hook(lambda gradient, keep=keep: gradient * keep)  # type: ignore[no-untyped-call]

    return change


def only_forced_preemption(network: ScorerNetwork) -> None:
    """Preempts only where nothing else is legal."""
    last = network.kind[-1]
    assert isinstance(last, torch.nn.Linear)
    keep = torch.ones_like(last.bias)
    keep[Kind.PREEMPT] = 0.0
    with torch.no_grad():
        last.bias[Kind.PREEMPT] = _NEVER_BIAS
        last.weight[Kind.PREEMPT] = 0.0
    last.bias.register_hook(lambda gradient: gradient * keep)  # type: ignore[no-untyped-call]
    last.weight.register_hook(lambda gradient: gradient * keep[:, None])  # type: ignore[no-untyped-call]


def unscaled(network: ScorerNetwork) -> None:
    """Features as the environment has them."""
    for scaled in (network.engine, network.waiting, network.running):
        scaled.gain.fill_(1.0)


@dataclass(frozen=True)
class Variant:
    """PPO with a part taken away.

    Attributes:
        what: for the table.
        settings: of PPO.
        masks: whether the learner sees what is legal; the environment replaces illegal actions.
        factored: whether greedy play takes the kind first; else the likeliest single action.
        long_turns: whether it learns in the environment of `infermax_gym.agents.recipes.learner`.
        warm_start: whether it begins as a clone of the teacher.
        change: of the fresh network.
    """

    what: str
    settings: PpoSettings = field(default_factory=PpoSettings)
    masks: bool = True
    factored: bool = True
    long_turns: bool = True
    warm_start: bool = False
    change: Change | None = None


CLONED = PpoSettings(learning_rate=3e-4, entropy=0.0)

VARIANTS = (
    Variant("PPO from scratch"),
    Variant("begun as a clone of spf-headroom", CLONED, warm_start=True, long_turns=False),
    Variant("looking no further than a decision's own gain", PpoSettings(ahead_s=0.0)),
    Variant("looking 500 s ahead", PpoSettings(ahead_s=500.0)),
    Variant("without a base-policy rollout", PLAIN),
    Variant("without a base-policy rollout, a constant discount per decision (0.99)", replace(PLAIN, tau_s=None)),
    Variant("asked whenever somebody could join, and episodes of 600 requests", long_turns=False),
    Variant("without the factored choice in play", factored=False),
    Variant("without masks for the learner", masks=False),
    Variant("without seeing what admission leaves free", change=blind_to("spare_blocks", "admission_blocks", "runway")),
    Variant("without gains of features", change=unscaled),
    Variant("without voluntary preemption", change=only_forced_preemption),
)


class Unmasked(InferMaxVecEnv):
    """Lanes that say everything is legal."""

    def action_masks(self) -> NDArray[np.bool_]:
        """(n, A) True."""
        return np.ones_like(super().action_masks())


def trained(variant: Variant, config: EnvConfig, num_decisions: int, seed: int) -> ScorerNetwork:
    """The best network of a variant, chosen on validation trace slices."""
    lanes = (InferMaxVecEnv if variant.masks else Unmasked)(
        variant.settings.num_lanes, config, seed=seed, base_rollout=variant.settings.shaping()
    )
    clone = None
    if variant.warm_start:
        clone = train(Recipe("bc", SCENARIO, seed, teacher=TEACHER), lambda point: None).network
    model = make_ppo(lanes, variant.settings, seed=seed, network=clone)
    if variant.change is not None:
        variant.change(network_of(model))
    held = trace_slices(SCENARIO, 6, split=TRAIN, seed=VALIDATION_SEED)
    network, _ = train_ppo(model, config, held, num_decisions=num_decisions)
    return network


def latency_s(network: ScorerNetwork, config: EnvConfig, trace_slice: TraceSlice, factored: bool) -> float:
    """Mean latency on a trace slice, greedily."""
    if factored:
        return float(play_network(network, config, trace_slice.workload, trace_slice.engine).latency_s.mean())

    def likeliest(flat: NDArray[np.float32], mask: NDArray[Any]) -> NDArray[np.int64]:
        with torch.no_grad():
            log_probs: Tensor = network.log_probs(torch.from_numpy(flat), torch.from_numpy(mask.astype(bool)))
        assert float(log_probs.max()) > NEVER
        return log_probs.argmax(-1).numpy()

    return float(play(likeliest, config, [Episode(trace_slice.workload, trace_slice.engine, None)])[0].latency_s.mean())


def ablation(variants: Sequence[Variant], num_decisions: int, seeds: Sequence[int], num_slices: int) -> str:
    """The table: mean latency over held-out trace slices, for every seed and over them."""
    torch.set_num_threads(1)
    plain = environment(SCENARIO, TEACHER)
    held = trace_slices(SCENARIO, num_slices, split=TEST)
    rows = []
    for variant in variants:
        config = learner(plain, SCENARIO) if variant.long_turns else plain
        means = []
        for seed in seeds:
            network = trained(variant, config, num_decisions, seed)
            means.append(float(np.mean([latency_s(network, config, w, variant.factored) for w in held])))
            print(f"{variant.what}, seed {seed}: {means[-1]:.2f} s", file=sys.stderr, flush=True)
        rows.append((variant.what, f"{np.mean(means):.2f}", ", ".join(f"{m:.2f}" for m in means)))
    for name in (TEACHER, "shortest-prompt-first", "sarathi"):
        mean = np.mean([simulate(w.workload, w.engine, POLICIES[name]).latency_s.mean() for w in held])
        rows.append((f"`{name}`, for comparison", f"{mean:.2f}", ""))
    return table(("", "mean E2E, s", "each seed"), rows)


def main(arguments: list[str] | None = None) -> int:
    """Train everything and print the table."""
    parser = argparse.ArgumentParser(description="What PPO's parts are worth.")
    parser.add_argument("--decisions", type=int, default=800_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--slices", "--windows", type=int, default=6, metavar="N", help="held-out trace slices")
    parser.add_argument("--only", default="", metavar="TEXT", help="only variants whose description contains this")
    options = parser.parse_args(arguments)
    chosen = [v for v in VARIANTS if options.only in v.what]
    if not chosen:
        parser.error(f"no variant's description contains {options.only!r}")
    print(ablation(chosen, options.decisions, range(options.seeds), options.slices))
    return 0


if __name__ == "__main__":
    sys.exit(main())
