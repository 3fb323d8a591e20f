"""The contract sheet says what the environment does; docs/environments.md says what the layout says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.knobs.layout import KNOB_NAMES
from infermax_gym.envs.rewards import REWARDS
from infermax_gym.envs.scheduling import layout
from infermax_gym.envs.scheduling.config import EPISODE_SETTINGS, EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
SHEET = InferMaxEnv.__doc__ or ""
TABLES = {
    "engine": layout.ENGINE_FEATURES,
    "waiting": layout.WAITING_FEATURES,
    "running": layout.RUNNING_FEATURES,
}


def stated_shape(name: str, text: str, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape after `name:` in a contract sheet, its letters replaced by sizes."""
    found = re.search(rf"\b{name}: \(([^)]*)\)", text)
    assert found is not None, f"the sheet does not say the shape of {name}"
    return tuple(sizes.get(part.strip(), 0) or int(part) for part in found.group(1).split(",") if part.strip())


@pytest.mark.parametrize("slots", [(16, 16), (3, 7)])
def test_shapes_of_the_sheet(slots: tuple[int, int]) -> None:
    env = InferMaxEnv(num_waiting_slots=slots[0], num_running_slots=slots[1])
    sizes = {"W": slots[0], "R": slots[1], "A": env.layout.num_actions}
    space = env.observation_space
    assert isinstance(space, gym.spaces.Dict)
    assert list(space.spaces) and set(space.spaces) == {*TABLES, "action_mask"}
    for name, box in space.spaces.items():
        assert stated_shape(name, SHEET, sizes) == box.shape
        assert isinstance(box, gym.spaces.Box)
        if name == "action_mask":
            assert (box.dtype, box.low.min(), box.high.max()) == (np.int8, 0, 1)
        else:
            assert (box.dtype, box.low.min(), box.high.max()) == (np.float32, -1.0, 1.0)


def test_flat_size_of_the_sheet() -> None:
    found = re.search(r"Box \((\d+) \+ (\d+) W \+ (\d+) R,\)", SHEET)
    assert found is not None
    engine, waiting, running = map(int, found.groups())
    env = InferMaxEnv(flat=True, num_waiting_slots=3, num_running_slots=7)
    assert env.observation_space.shape == (engine + 3 * waiting + 7 * running,)


def test_the_flat_form_is_the_dict_laid_out() -> None:
    one, other = InferMaxEnv(num_requests=20), InferMaxEnv(num_requests=20, flat=True)
    a, _ = one.reset(seed=0)
    b, _ = other.reset(seed=0)
    for _ in range(40):
        np.testing.assert_array_equal(np.concatenate([a[name].ravel() for name in ("engine", "waiting", "running")]), b)
        np.testing.assert_array_equal(a["action_mask"], other.action_masks())
        action = int(a["action_mask"].argmax())
        a, *_ = one.step(action)
        b, *_ = other.step(action)


def test_the_sheet_says_everything() -> None:
    for word in ("Action:", "Observation:", "Reward:", "Episode end:", "Args:", "Example:", "dt_s", "metrics"):
        assert word in SHEET
    for number in re.findall(r"Box \((\d+),\)", InferMaxKnobsEnv.__doc__ or ""):
        assert int(number) in (len(KNOB_NAMES), len(layout.ENGINE_FEATURES))


def commented(names: tuple[str, ...]) -> dict[str, str]:
    """Features and the comments that define them in layout.py, in order; '' where the name says it all."""
    source = Path(layout.__file__).read_text(encoding="utf-8")
    enums = re.findall(r"^class \w+Feature\(IntEnum\):\n(.*?)\n\n\n", source, re.MULTILINE | re.DOTALL)
    for body in enums:
        entries = re.findall(r"^    ([A-Z_]+) = \d+(?:  # (.*))?$", body, re.MULTILINE)
        if tuple(name.lower() for name, _ in entries) == names:
            return {name.lower(): comment for name, comment in entries}
    raise AssertionError("layout.py lists no such features")


@pytest.mark.parametrize("table", TABLES)
def test_feature_tables_of_the_docs(table: str) -> None:
    """Same names, same order, same words as in the code."""
    names = TABLES[table]
    heading = re.search(rf"^### {table} \(([^)\n]*)\)$(.*?)^(?=#|[A-Z])", DOCS, re.MULTILINE | re.DOTALL)
    assert heading is not None, f"docs/environments.md has no table of {table}"
    shape, body = heading.groups()
    assert shape.split(",")[0 if table == "engine" else 1].strip() == str(len(names))
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", body, re.MULTILINE))
    assert list(rows) == list(names)
    for name, comment in commented(names).items():
        assert rows[name] == comment or not comment, (
            f"{table}.{name}: the docs say {rows[name]!r}, the code {comment!r}"
        )


def test_rewards_and_options_of_the_docs() -> None:
    for name, reward in REWARDS.items():
        assert f"| `{name}` | {reward.unit} |" in DOCS
    for option in EPISODE_SETTINGS:
        assert f"`{option}`" in DOCS


@pytest.mark.parametrize("env_id", ["InferMax-v0", "InferMaxKnobs-v0"])
def test_default_spaces_are_finite(env_id: str) -> None:
    spaces: list[Any] = [gym.make(env_id).observation_space, gym.make(env_id).action_space]
    for space in spaces:
        for part in space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]:
            if isinstance(part, gym.spaces.Box):
                assert part.is_bounded()


def test_every_setting_is_documented() -> None:
    sheet = EnvConfig.__doc__ or ""
    for name in EnvConfig.__dataclass_fields__:
        assert re.search(rf"^        {name}: ", sheet, re.MULTILINE), f"EnvConfig does not say what {name} is"
