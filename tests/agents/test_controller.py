"""Controllers: policies in disguise, the environment's own schedule, length estimates, and files."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from scipy import integrate, stats

import infermax_gym  # noqa: F401 - registers the environments
from infermax_gym.agents import Agent, AgentError, load_agent, save_agent
from infermax_gym.agents.controller import Controller, GatingNetwork, weights_from_action
from infermax_gym.agents.controller_kernel import choose, expected_remaining
from infermax_gym.agents.controller_layout import CONTROLLER_FEATURES, CONTROLLER_KNOBS
from infermax_gym.agents.evolution import tuned_policy
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.engine import SimulationResult, simulate
from infermax_gym.workload import load_workload
from tests.engine.strategies import CONCAVE

NUM_ENGINE = CONTROLLER_FEATURES.index("log_output")
SCENARIOS = (
    TrainingScenario("azure-conv", 120, 1.0, 8_000),
    TrainingScenario("reasoning", 60, 0.6, 20_000),
    TrainingScenario("mixed", 100, 0.7, 20_000, "llama3-70b-a100x4"),
)


def same(a: SimulationResult, b: SimulationResult) -> None:
    np.testing.assert_array_equal(a.finish_s, b.finish_s)
    np.testing.assert_array_equal(a.first_token_s, b.first_token_s)
    assert a.num_preemptions == b.num_preemptions and a.busy_s == b.busy_s


def random_weights(seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).normal(0.0, 0.3, (len(CONTROLLER_KNOBS), len(CONTROLLER_FEATURES)))
    weights[CONTROLLER_KNOBS.index("preempt"), 0] = 1.0
    return weights


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.workload))
@pytest.mark.parametrize("estimates_lengths", [False, True])
def test_constant_weights_are_a_row(scenario: TrainingScenario, estimates_lengths: bool) -> None:
    """Setting the same knobs again and again changes nothing."""
    for seed, trace_slice in enumerate(trace_slices(scenario, 4, split=TRAIN)):
        action = np.random.default_rng(seed).uniform(-1.0, 1.0, 11)
        action[4] = 0.0  # the policy knows no lengths
        row = simulate(trace_slice.workload, trace_slice.engine, tuned_policy(action, "row", predicted_sigma=None))
        controller = Controller(weights_from_action(action), estimates_lengths=estimates_lengths, interval_s=1.5)
        same(controller.play(trace_slice.workload, trace_slice.engine), row)


def test_constant_weights_are_a_policy_where_the_cost_is_not_convex() -> None:
    trace_slice = trace_slices(SCENARIOS[0], 1, split=TRAIN)[0]
    engine = replace(trace_slice.engine, cost=CONCAVE)
    action = np.random.default_rng(1).uniform(-1.0, 1.0, 11)
    action[4] = 0.0  # the policy knows no lengths
    expected = simulate(trace_slice.workload, engine, tuned_policy(action, "fixed", predicted_sigma=None))
    same(Controller(weights_from_action(action), interval_s=1.5).play(trace_slice.workload, engine), expected)


def test_plays_the_environment_of_knobs() -> None:
    """Weights of the engine features and the first eleven knobs: the schedule of `InferMaxKnobs-v0`."""
    weights = random_weights(1)
    weights[:, NUM_ENGINE:] = 0.0
    weights[len(CONTROLLER_KNOBS) - 9 :] = 0.0
    env = gym.make("InferMaxKnobs-v0", num_requests=150, num_kv_tokens=(9_000, 9_000), time_scale=(0.9, 0.9))
    observation, _ = env.reset(seed=5)
    raw = env.unwrapped
    workload, engine = raw.run.episode.workload, raw.run.episode.engine  # type: ignore[attr-defined]
    done = False
    while not done:
        features, knobs = np.zeros(len(CONTROLLER_FEATURES)), np.zeros(len(CONTROLLER_KNOBS))
        features[0] = 1.0
        features[1:NUM_ENGINE] = observation
        choose(weights, features, knobs)
        observation, _, done, _, info = raw.step(knobs[:11])  # type: ignore[attr-defined]
    result = Controller(weights, interval_s=5.0, estimates_lengths=False).play(workload, engine)
    assert info["metrics"]["latency_s"]["mean"] == result.latency_s.mean()
    assert info["metrics"]["num_preemptions"] == result.num_preemptions


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.workload))
def test_any_weights_serve_everybody(scenario: TrainingScenario) -> None:
    """Preempting at every setting, with wild keys, still ends; the recorded schedule is the unrecorded one."""
    for seed in range(3):
        trace_slice = trace_slices(scenario, 1, split=TRAIN, seed=seed)[0]
        controller = Controller(random_weights(seed), interval_s=0.2, classes=True, sigma=0.6)
        predicted_lengths = trace_slice.predicted(0.6)
        plain = controller.play(trace_slice.workload, trace_slice.engine, predicted=predicted_lengths)
        written = controller.play(
            trace_slice.workload, trace_slice.engine, predicted=predicted_lengths, record_schedule=True
        )
        same(plain, written)
        assert plain.finished.all() and written.schedule is not None
        computed = sum(tokens for iteration in written.schedule for _, tokens in iteration.batch)
        needed = (trace_slice.workload.num_prompt_tokens + trace_slice.workload.num_output_tokens - 1).sum()
        assert computed == needed + plain.num_recomputed_tokens


def test_settings_are_what_is_set() -> None:
    trace_slice = trace_slices(SCENARIOS[0], 1, split=TRAIN)[0]
    action = np.linspace(-0.9, 0.9, 11)
    settings = Controller(weights_from_action(action)).settings(trace_slice.workload, trace_slice.engine, most=5)
    assert len(settings) == 5
    for setting in settings:
        assert setting.specialist == 0 and setting.features[0] == 1.0
        np.testing.assert_allclose(setting.knobs[:11], action)


def test_preempting_for_the_head_preempts() -> None:
    trace_slice = trace_slices(SCENARIOS[1], 1, split=TRAIN)[0]
    action = np.array([0.0, 0.0, 0.0, 0.5, 0.0, -1.0, 1.0, 1.0, 0.0, 0.5, 0.0])
    weights = weights_from_action(action)
    never = Controller(weights).play(trace_slice.workload, trace_slice.engine)
    weights[CONTROLLER_KNOBS.index("preempt"), 0] = 0.7
    often = Controller(weights).play(trace_slice.workload, trace_slice.engine)
    assert often.num_preemptions > never.num_preemptions


@pytest.mark.parametrize("generated", [0, 1, 50, 400, 3000, 30_000, 1_000_000])
@pytest.mark.parametrize(("mean", "spread"), [(5.0, 1.0), (6.8, 0.4), (3.0, 1.5)])
def test_expected_remaining_is_the_mean_beyond(generated: int, mean: float, spread: float) -> None:
    """Against the integral of what still lives, in logarithms: far out it is a ratio of numbers near zero."""
    lengths = stats.lognorm(s=spread, scale=np.exp(mean))
    at = max(1.0, (np.log(max(generated, 1)) - mean) / spread)
    scale = max(generated, np.exp(mean)) * spread / at  # what remains is of this size
    living = lambda u: float(np.exp(lengths.logsf(generated + scale * u) - lengths.logsf(generated)))  # noqa: E731
    edges = (0.0, 1.0, 10.0, 100.0, 1e4)
    expected = scale * sum(integrate.quad(living, *piece)[0] for piece in pairwise(edges))
    far = lengths.sf(generated) < 1e-9  # from there on the tail's leading term is taken
    tolerance = 0.2 if far else 1e-3
    assert expected_remaining(mean, spread, float(generated)) == pytest.approx(max(expected, 1.0), rel=tolerance)


def test_belief_far_beyond_is_finite_and_grows() -> None:
    rests = [expected_remaining(3.0, 0.3, float(g)) for g in (10**3, 10**4, 10**5, 10**6)]
    assert all(np.isfinite(rests)) and rests == sorted(rests)


def test_without_predictions_it_cannot_know() -> None:
    """Without classes and predictions, lengths that nobody has seen finish do not move the first decisions."""
    trace_slice = trace_slices(SCENARIOS[1], 1, split=TRAIN)[0]
    weights = random_weights(3)
    for knob, constant in (("headroom", -1.0), ("max_running", 1.0)):
        weights[CONTROLLER_KNOBS.index(knob)] = 0.0
        weights[CONTROLLER_KNOBS.index(knob), 0] = constant
    outputs = trace_slice.workload.num_output_tokens
    controller = Controller(weights)
    first = controller.play(replace(trace_slice.workload, num_output_tokens=outputs + 300), trace_slice.engine)
    second = controller.play(replace(trace_slice.workload, num_output_tokens=outputs + 800), trace_slice.engine)
    before = first.finish_s.min()
    early = first.first_scheduled_s < before
    assert early.sum() > 3
    np.testing.assert_array_equal(first.first_scheduled_s[early], second.first_scheduled_s[early])


def test_file(tmp_path: Path) -> None:
    controller = Controller(random_weights(0).astype(np.float32), classes=True, sigma=0.6, prior=(5.0, 1.0, 2.0))
    path = tmp_path / "controller.safetensors"
    save_agent(path, Agent("some", controller=controller))
    again = load_agent(path)
    assert again.kind == "controller" and again.information.name == "PREDICTED" and again.controller is not None
    np.testing.assert_array_equal(again.controller.weights, controller.weights)
    assert again.controller.prior == controller.prior and again.controller.classes
    workload = load_workload("reasoning", num_requests=30)
    same(
        again.play(workload, SCENARIOS[1].engine, seed=3), load_agent(path).play(workload, SCENARIOS[1].engine, seed=3)
    )


def test_file_for_other_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "controller.safetensors"
    save_agent(path, Agent("some", controller=Controller(random_weights(0))))
    monkeypatch.setattr(
        "infermax_gym.agents.serialization._AXES", (("knobs", CONTROLLER_KNOBS[1:]), ("features", CONTROLLER_FEATURES))
    )
    with pytest.raises(AgentError, match="was trained for other knobs"):
        load_agent(path)


def test_bad_controllers() -> None:
    with pytest.raises(ValueError, match="finite weights"):
        Controller(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="interval_s"):
        Controller(random_weights(0), interval_s=0.0)
    trace_slice = trace_slices(SCENARIOS[1], 1, split=TRAIN)[0]
    with pytest.raises(ValueError, match="needs predicted"):
        Controller(random_weights(0), sigma=0.6).play(trace_slice.workload, trace_slice.engine)


def gating_between(feature: str, at: float) -> GatingNetwork:
    """Specialist 1 wherever a feature is above a value, else specialist 0."""
    inner = np.zeros((1, len(CONTROLLER_FEATURES)))
    inner[0, CONTROLLER_FEATURES.index(feature)] = 10.0
    inner[0, 0] = -10.0 * at
    return GatingNetwork(inner, np.array([[0.0, 0.0], [1.0, 0.0]]))


def test_gating_network_activates_one_specialist() -> None:
    """One that always says the same is that specialist; one that looks at the queue changes over."""
    trace_slice = trace_slices(SCENARIOS[1], 1, split=TRAIN)[0]
    two = np.stack([random_weights(0), random_weights(1)])
    plays = [Controller(own, interval_s=1.0).play(trace_slice.workload, trace_slice.engine) for own in two]
    assert plays[0].latency_s.mean() != plays[1].latency_s.mean()
    for k, above in ((0, 2.0), (1, -2.0)):
        gated = Controller(two, interval_s=1.0, gating=gating_between("waiting", above))
        same(gated.play(trace_slice.workload, trace_slice.engine), plays[k])
    gated = Controller(two, interval_s=1.0, gating=gating_between("waiting", 0.5))
    place = CONTROLLER_FEATURES.index("waiting")
    settings = gated.settings(trace_slice.workload, trace_slice.engine)
    assert {s.specialist for s in settings} == {0, 1}
    for s in settings:
        assert s.specialist == int(s.features[place] > 0.5)
        knobs = np.zeros(len(CONTROLLER_KNOBS))
        choose(two[s.specialist], s.features, knobs)
        np.testing.assert_array_equal(knobs, s.knobs)


def test_several_specialists_need_a_gating_network(tmp_path: Path) -> None:
    two = np.stack([random_weights(0), random_weights(1)]).astype(np.float32)
    with pytest.raises(ValueError, match="2 specialists need a gating network"):
        Controller(two)
    with pytest.raises(ValueError, match="a gating network has"):
        GatingNetwork(np.zeros((2, 3)), np.zeros((2, 3)))
    gated = Controller(two, gating=gating_between("backlog", 0.25))
    save_agent(tmp_path / "gated.safetensors", Agent("gated", controller=gated))
    again = load_agent(tmp_path / "gated.safetensors").controller
    assert again is not None and again.gating is not None and gated.gating is not None
    np.testing.assert_array_equal(again.weights, gated.weights)
    np.testing.assert_array_equal(again.gating.inner, gated.gating.inner)
    np.testing.assert_array_equal(again.gating.outer, gated.gating.outer)
