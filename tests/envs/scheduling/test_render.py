"""What render() shows, that looking changes nothing, and that it is quick."""

from __future__ import annotations

import re
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.paint import PAGE, PAPER, RULE
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import Kind
from infermax_gym.envs.scheduling.render import MOST_ROWS, draw_ansi
from infermax_gym.testing import random_legal
from tests.envs.playing import play, randomly, same_observation, small_workload, tight_env


def somewhere(num_steps: int = 60, **settings: Any) -> InferMaxEnv:
    """In the middle of an episode with a queue and a full cache."""
    env = tight_env(small_workload(40, rate=500.0), **settings)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        env.step(random_legal(env.action_masks(), env.layout, rng))
    return env


def test_text() -> None:
    env = somewhere(render_mode="ansi")
    text = env.render()
    core = env.run.engine.record[0]
    assert f"{core['clock_s']:.2f} s" in text
    assert f"{core['num_finished']} finished, {core['num_rejected']} rejected" in text
    assert f"{core['num_blocks'] - core['free_blocks']} of {core['num_blocks']} blocks" in text
    assert f"{core['num_running']} of {core['max_num_seqs']} sequences" in text
    assert f"{core['num_waiting']} requests" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_the_text_names_the_legal_actions() -> None:
    env = somewhere()
    lines = draw_ansi(env.run).splitlines()
    header = next(i for i, line in enumerate(lines) if "ADMIT" in line)
    cut = lines[header].index("PREEMPT") - 3
    mask = env.action_masks()
    for kind, part in ((Kind.ADMIT, slice(0, cut)), (Kind.PREEMPT, slice(cut, None))):
        first = env.layout.encode(kind, 0)
        rows = [line[part].split() for line in lines[header + 1 :] if line[part].strip()]
        rows = [row for row in rows if row[0] != "and"][:MOST_ROWS]
        assert rows
        for slot, row in enumerate(rows):
            assert row[0] == (str(first + slot) if mask[first + slot] else "-")
    slots = env.run.lane.slots[: env.layout.num_waiting_slots]
    assert re.search(rf"^ +\S+ +{slots[0]} ", lines[header + 1])


def test_text_at_the_ends() -> None:
    env = tight_env(render_mode="ansi")
    env.reset(seed=0)
    assert "24 requests: 0 finished" in env.render()
    play(env, randomly(0))
    text = env.render()
    assert "24 finished" in text and "nobody" in text and "ADMIT" not in text


def test_text_of_knobs() -> None:
    env = InferMaxKnobsEnv(num_requests=30, render_mode="ansi")
    env.reset(seed=0)
    env.step(np.zeros(11, np.float32))
    text = env.render()
    assert "KV cache" in text and "PREEMPT" not in text


def test_picture() -> None:
    env = somewhere(render_mode="rgb_array")
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (640, 900, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 12
    np.testing.assert_array_equal(picture, env.render())
    env.step(env.layout.num_chunk_budgets - 1)
    assert not np.array_equal(picture, env.render())


def test_picture_at_the_ends() -> None:
    env = tight_env(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    play(env, randomly(0))
    last = env.render()
    assert first.shape == last.shape and not np.array_equal(first, last)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), first)


def test_a_long_episode_is_drawn_quickly() -> None:
    env = somewhere(render_mode="rgb_array")
    env.render()
    env._history = env._history * 2_000
    assert len(env._history) > 100_000
    times = []
    for _ in range(5):
        began = time.process_time()
        env.render()
        times.append(time.process_time() - began)
    assert min(times) < 0.03, "under 10 ms where nobody else is at work"


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_looking_changes_nothing(render_mode: str) -> None:
    seen, unseen = tight_env(render_mode=render_mode), tight_env()
    a, _ = seen.reset(seed=0)
    b, _ = unseen.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(25):
        seen.render()
        assert same_observation(a, b)
        action = random_legal(unseen.action_masks(), unseen.layout, rng)
        a, *rest_a, _ = seen.step(action)
        b, *rest_b, _ = unseen.step(action)
        assert rest_a == rest_b


def test_without_a_mode() -> None:
    env = tight_env()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="needs render_mode"):
        assert env.render() is None


def test_before_the_first_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        tight_env(render_mode="ansi").render()


def test_gymnasium_records_the_pictures() -> None:
    env = gym.wrappers.RenderCollection(gym.make("InferMax-v0", num_requests=4, render_mode="rgb_array"))
    env.reset(seed=0)
    for _ in range(3):
        env.step(int(env.get_wrapper_attr("action_masks")().argmax()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = env.render()
    assert frames is not None and len(frames) == 4


@pytest.mark.parametrize("env_id", ["InferMax-v0", "InferMaxKnobs-v0", "InferMaxRouter-v0"])
def test_every_id_has_every_mode(env_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = set()
    for mode in ("ansi", "rgb_array", "human", None):
        env: Any = gym.make(env_id, num_requests=6, render_mode=mode)
        assert {"ansi", "rgb_array", "human"} == set(env.metadata["render_modes"])
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(2):
            env.step(env.action_space.sample())
            frame = env.render() if mode else None
            if mode == "rgb_array":
                assert frame.dtype == np.uint8 and frame.ndim == 3
                shapes.add(frame.shape)
            elif mode == "ansi":
                assert "KV" in frame
            else:
                assert frame is None
        printed = capsys.readouterr().out
        assert ("KV" in printed) == (mode == "human")
    assert len(shapes) == 1
    with pytest.raises(ValueError, match="render_mode must be human, ansi, rgb_array or None, got 'svg'"):
        gym.make(env_id).unwrapped.__class__(render_mode="svg")


def test_a_picture_shows_what_is_there() -> None:
    """Taller curves where there is more, and the strip as full as the cache."""
    env = somewhere(render_mode="rgb_array")
    picture, core = env.render(), env.run.engine.record[0]
    used = 1.0 - core["free_blocks"] / core["num_blocks"]
    strip = picture[597, 74:858]
    filled = (strip != np.array(PAGE)).any(axis=1).mean()
    assert filled == pytest.approx(used, abs=0.05)
    kv = picture[444:532, 857]
    height = (~np.isin(kv, (PAPER, RULE)).all(axis=1)).sum() / 88
    assert height == pytest.approx(used, abs=0.04)


def test_recording_wrappers() -> None:
    env = gym.wrappers.AddRenderObservation(gym.make("InferMaxRouter-v0", num_requests=5, render_mode="rgb_array"))
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
