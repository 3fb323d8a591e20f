"""The ways to train a policy for a scenario, each from a seed to an `Agent` and its learning curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infermax_gym.agents.agent import Agent
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.engine import Information, Policy
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.evaluation import Player

if TYPE_CHECKING:
    from infermax_gym.agents.ppo import PpoSettings

Point = dict[str, float]
"""A point of a learning curve: figures by name, "step" and "loss" among them."""

Report = Callable[[Point], None]

LONG_EPISODE = 800
"""Requests of an episode of ppo, where the scenario's trace slices have as many."""

VALIDATION_SEED = 1_000_003
"""Of the trace slices on which the best network is chosen; training and test trace slices have other seeds."""


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, for how long.

    Attributes:
        algo: a key of `ALGORITHMS`.
        scenario: the situation.
        seed: of everything random.
        minutes: stop after so much time, if given ...
        steps: ... or after so many generations (es), demonstrations (bc), decisions (ppo) or rounds (search).
        teacher: policy of the table that bc imitates; in ppo, the base policy of the rollouts.
        warm_start: ppo begins with a clone of the teacher.
        num_slices: training trace slices (es), and as many validation trace slices (es, search, alternatives), or
            twice (ppo).
        folder: for checkpoints, models and logs, or None.
        resume: go on from the checkpoint in it (ppo).
        num_lanes: environments side by side (ppo).
        num_steps: decisions of a lane between two updates (ppo).
        every: rollouts (ppo), or times 5,000 decisions (alternatives), between two evaluations.
        patience: stop after so many evaluations without a better policy (ppo, alternatives); None: never.
        base_rollout: ppo's rewards are shaped by base-policy rollouts of the teacher; see
            `infermax_gym.agents.base_rollout`.
        ahead_s: ppo, with a base-policy rollout; see `PpoSettings`. None: as it is there.
        learning_rate: ppo; None: as `PpoSettings` has it, smaller after a warm start or without a base-policy rollout.
    """

    algo: str
    scenario: TrainingScenario
    seed: int = 0
    minutes: float | None = None
    steps: int | None = None
    teacher: str = "spf-headroom"
    warm_start: bool = False
    num_slices: int = 12
    folder: Path | None = None
    resume: bool = False
    num_lanes: int = 32
    num_steps: int = 256
    every: int = 2
    patience: int | None = None
    base_rollout: bool = True
    ahead_s: float | None = None
    learning_rate: float | None = None

    @property
    def logs(self) -> str | None:
        """Where TensorBoard's logs go: into the folder, if tensorboard is installed."""
        from importlib.util import find_spec

        return None if self.folder is None or find_spec("tensorboard") is None else str(self.folder / "tensorboard")

    def card(self, **more: Any) -> dict[str, Any]:
        """What the file of the policy says about its training."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("folder", "resume")}
        return {"training": {**plain, **more}}


def train(recipe: Recipe, report: Report) -> Agent:
    """Train a policy; `report` gets the points of the learning curve as they come.

    Raises:
        ValueError: the algorithm or teacher is unknown, or the workload cannot be used.
    """
    if recipe.algo not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {recipe.algo!r}; known: {', '.join(ALGORITHMS)}")
    return ALGORITHMS[recipe.algo](recipe, report)


def environment(scenario: TrainingScenario, teacher: str) -> EnvConfig:
    """The environment in which a network learns a scenario: its load and memory, give or take, often with a backlog.

    A trace is used up to its middle: the test trace slices are cut from the rest.
    """
    from infermax_gym.workload import PRESETS, load_workload

    source: Any = scenario.workload
    if source not in PRESETS:
        whole = load_workload(source)
        source = whole.trace_slice(0, len(whole) // 2)
    return EnvConfig(
        workloads=(source,),
        num_requests=(min(scenario.num_requests, 600),) * 2,
        backlog=(0, 60),
        time_scale=(0.8 * scenario.time_scale, 1.1 * scenario.time_scale),
        num_kv_tokens=(scenario.num_kv_tokens, scenario.num_kv_tokens),
        costs=(scenario.cost,),
        max_num_batched_tokens=scenario.max_num_batched_tokens,
        level_shares=(1.0,),
        base=_teacher(teacher),
    )


def learner(config: EnvConfig, scenario: TrainingScenario) -> EnvConfig:
    """`environment` as PPO learns in it from scratch.

    What is held back stays held back until something changes, no request is admitted beyond the token budget, and
    episodes are long: in short ones it pays to hold back, since no request comes after them.
    """
    length = min(scenario.num_requests, LONG_EPISODE)
    return config.changed(decide="change", admit_within_budget=True, num_requests=length)


def _teacher(name: str) -> Policy:
    from infermax_gym.baselines.policies import POLICIES

    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}; `infermax list policies` shows all")
    if POLICIES[name].information in (Information.PREDICTED, Information.ORACLE):
        raise ValueError(f"policy {name!r} needs output lengths, which are not known here; choose one that knows none")
    return POLICIES[name]


def _evolve(recipe: Recipe, report: Report) -> Agent:
    from infermax_gym.agents.evolution import SHORTEST_FIRST, evolve

    result = evolve(
        trace_slices(recipe.scenario, recipe.num_slices, split=TRAIN, seed=recipe.seed),
        seed=recipe.seed,
        minutes=recipe.minutes,
        generations=recipe.steps,
        name="evolved",
        start=SHORTEST_FIRST,
        spread=0.2,
        validation=trace_slices(recipe.scenario, recipe.num_slices, split=TRAIN, seed=VALIDATION_SEED),
        progress=lambda number, loss, elapsed_s: report({"step": number, "elapsed_s": elapsed_s, "loss": loss}),
    )
    card = recipe.card(num_evaluations=result.num_evaluations, loss=result.loss)
    return Agent("evolved", policy=result.policy, card={**card, "note": "knobs tuned by evolution (CMA-ES)"})


def _one_thread() -> None:
    """Networks this small learn faster on one thread, and results do not depend on the machine's cores."""
    import torch

    torch.set_num_threads(1)


def _clone(recipe: Recipe, report: Report) -> Agent:
    from infermax_gym.agents.imitation import imitate

    _one_thread()
    config = environment(recipe.scenario, recipe.teacher)
    agreement = 0.0

    def after_epoch(epoch: int, loss: float, share: float) -> None:
        nonlocal agreement
        agreement = share
        report({"step": epoch, "loss": loss, "agreement": share})

    count = recipe.steps or 20_000
    network = imitate(config.base, config, seed=recipe.seed, num_decisions=count, report=after_epoch)
    card = recipe.card(agreement=agreement)
    note = f"network that imitates {recipe.teacher}"
    return Agent("clone", network=network, config=config, card={**card, "note": note})


def ppo_settings(recipe: Recipe) -> PpoSettings:
    """What a recipe means for PPO: the same when it begins and when it is resumed.

    Raises:
        ValueError: it looks ahead without a base-policy rollout, or a number is out of range.
    """
    from infermax_gym.agents.ppo import PLAIN, PpoSettings

    settings = PpoSettings() if recipe.base_rollout else PLAIN
    settings = replace(settings, num_lanes=recipe.num_lanes, num_steps=recipe.num_steps)
    if recipe.warm_start:
        settings = replace(settings, learning_rate=3e-4, entropy=0.0)
    if recipe.ahead_s is not None:
        if not recipe.base_rollout:
            raise ValueError(
                "ahead_s looks beyond what a base-policy rollout tells; it means nothing with plain rewards"
            )
        settings = replace(settings, ahead_s=recipe.ahead_s)
    if recipe.learning_rate is not None:
        settings = replace(settings, learning_rate=recipe.learning_rate)
    return settings


def _ppo(recipe: Recipe, report: Report) -> Agent:
    from infermax_gym.agents import checkpoint as checkpoints
    from infermax_gym.agents.ppo import make_ppo
    from infermax_gym.agents.training import train_ppo
    from infermax_gym.agents.vec_env import InferMaxVecEnv

    settings = ppo_settings(recipe)
    _one_thread()
    config = environment(recipe.scenario, recipe.teacher)
    if not recipe.warm_start:
        config = learner(config, recipe.scenario)
    network = None
    if recipe.warm_start and not recipe.resume:
        network = _clone(replace(recipe, steps=None), report).network
    lanes = InferMaxVecEnv(settings.num_lanes, config, seed=recipe.seed, base_rollout=settings.shaping())
    model = make_ppo(lanes, settings, seed=recipe.seed, network=network, tensorboard=recipe.logs)
    checkpoint = None if recipe.folder is None else recipe.folder / checkpoints.FILE
    progress = None
    if recipe.resume and checkpoint is not None:
        progress = checkpoints.load_checkpoint(checkpoint, model)

    def after_evaluation(progress: checkpoints.Progress) -> None:
        decisions, elapsed_s, mean_s, geometric_s = progress.curve[-1]
        report({"step": decisions, "elapsed_s": elapsed_s, "mean_latency_s": mean_s, "loss": geometric_s})

    best, progress = train_ppo(
        model,
        config,
        trace_slices(recipe.scenario, 2 * recipe.num_slices, split=TRAIN, seed=VALIDATION_SEED),
        num_decisions=recipe.steps,
        minutes=recipe.minutes,
        every=recipe.every,
        patience=recipe.patience,
        progress=progress,
        checkpoint=checkpoint,
        report=after_evaluation,
    )
    card = recipe.card(ppo=asdict(settings), num_decisions=model.num_timesteps)
    return Agent("ppo", network=best, config=config, card={**card, "note": "network trained by PPO"})


def _search(recipe: Recipe, report: Report) -> Agent:
    """Expert iteration from a clone of the teacher; `steps` counts rounds."""
    import time

    from infermax_gym.agents.search import SearchSettings, expert_iteration

    _one_thread()
    began = time.monotonic()
    clone = _clone(replace(recipe, steps=None), lambda point: None)
    assert clone.network is not None and clone.config is not None

    def stop() -> bool:
        return recipe.minutes is not None and time.monotonic() - began > 60.0 * recipe.minutes

    def after_round(number: int, loss: float, share: float) -> None:
        elapsed_s = time.monotonic() - began
        report({"step": number, "elapsed_s": elapsed_s, "loss": float(np.exp(loss)), "better_actions": share})

    settings = SearchSettings()
    network = expert_iteration(
        clone.network,
        clone.config,
        trace_slices(recipe.scenario, recipe.num_slices, split=TRAIN, seed=VALIDATION_SEED),
        rounds=recipe.steps,
        stop=stop,
        settings=settings,
        seed=recipe.seed,
        report=after_round,
    )
    card = recipe.card(search=asdict(settings))
    note = "network improved by expert iteration: measured actions, distilled"
    return Agent("search", network=network, config=clone.config, card={**card, "note": note})


def train_player(recipe: Recipe, report: Report) -> Player:
    """Train one of `ALTERNATIVES`; its model stays an archive of stable-baselines3 in the folder.

    Raises:
        ValueError: there is no folder, or the algorithm is unknown.
    """
    from infermax_gym.agents.alternatives import train_alternative

    if recipe.folder is None:
        raise ValueError(f"{recipe.algo} needs a folder for its model")
    _one_thread()
    return train_alternative(
        recipe.algo,
        environment(recipe.scenario, recipe.teacher),
        trace_slices(recipe.scenario, recipe.num_slices, split=TRAIN, seed=VALIDATION_SEED),
        recipe.folder,
        seed=recipe.seed,
        num_decisions=recipe.steps,
        minutes=recipe.minutes,
        every=5_000 * recipe.every,
        patience=recipe.patience,
        tensorboard=recipe.logs,
        report=report,
    )


ALGORITHMS: dict[str, Callable[[Recipe, Report], Agent]] = {
    "es": _evolve,
    "bc": _clone,
    "ppo": _ppo,
    "search": _search,
}
