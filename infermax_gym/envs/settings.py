"""Settings as people type them: a plain value pins a range, a pair is a range, a string is one name.

A reader takes the name of a setting and what was typed and gives the value in its one form, or raises a
`SettingError`, one line that says which setting, what it was and what would be right.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym.cost import COSTS, CostModel
from infermax_gym.cost.engines import EngineNameError, find_engine
from infermax_gym.engine import Policy
from infermax_gym.envs.rewards import REWARDS, Reward
from infermax_gym.workload import PRESETS, Workload

Range = tuple[float, float]
Reader = Callable[[str, Any], Any]

ALIASES = {"workload": "workloads", "cost": "costs", "slo_ttft_s": "ttft_slo_s", "slo_tpot_s": "tpot_slo_s"}
"""Other names of settings: one workload or cost model in the singular, and what limits were called before."""


class SettingError(ValueError):
    """A setting of an environment is unknown or out of range; one line."""


def wrong(name: str, expected: str, value: Any) -> SettingError:
    """The error of a setting that must be something else."""
    shown = repr(value)
    shown = shown if len(shown) < 200 else f"{shown[:197]}..."
    return SettingError(f"environment: {name} must be {expected}, got {shown}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A few words that lead from a mistyped name to the right one: ", did you mean ...?" or the known ones."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def named(settings: Mapping[str, Any], known: Collection[str], what: str = "setting") -> dict[str, Any]:
    """The settings under their own names.

    Args:
        settings: what was typed.
        known: names of settings.
        what: what they are called in the error.

    Raises:
        SettingError: a setting is unknown or given under two names.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        own = ALIASES.get(name, name) if name not in known else name
        if own not in known:
            raise SettingError(f"environment: unknown {what} {name!r}; {nearest(str(name), known)}")
        if own in found:
            raise SettingError(f"environment: {what} {own!r} is given twice")
        found[own] = value
    return found


def pinned(config: Any, options: Any, names: Collection[str]) -> dict[str, Any]:
    """The settings that the options of a reset change, in their one form.

    Args:
        config: of the environment.
        options: what `reset` was given: None or a mapping of settings.
        names: settings that may change from episode to episode.

    Raises:
        SettingError: an option is unknown, fixed when the environment is made, or out of range.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise wrong("options of a reset", "a mapping of settings", options)
    fixed = [name for name in options if name not in names and name in config.__dataclass_fields__]
    if fixed:
        raise SettingError(
            f"environment: {fixed[0]!r} is fixed when the environment is made; a reset changes {', '.join(names)}"
        )
    given = named(options, names, "reset option")
    changed = config.changed(**given)
    return {name: getattr(changed, name) for name in given}


def normalise(config: Any, readers: Mapping[str, Reader]) -> None:
    """Bring the fields of a frozen configuration into their one form."""
    for name, reader in readers.items():
        object.__setattr__(config, name, reader(name, getattr(config, name)))


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number (True is none, 3.0 is one)."""
    return is_number(value) and (isinstance(value, Integral) or float(value).is_integer())


def is_number(value: Any) -> bool:
    """Whether a value is a real number other than nan (True is none)."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def size(least: int, most: float = math.inf, *, optional: bool = False) -> Reader:
    """A whole number."""
    expected = f"a whole number of at least {least}" if most == math.inf else f"a whole number in {least}..{most}"
    expected += " or None" if optional else ""

    def read(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        if not is_whole(value) or not least <= value <= most:
            raise wrong(name, expected, value)
        return int(value)

    return read


def number(expected: str, fits: Callable[[float], bool], *, optional: bool = False) -> Reader:
    """A number, `expected` in words."""

    def read(name: str, value: Any) -> float | None:
        if value is None and optional:
            return None
        if not is_number(value) or not fits(float(value)):
            raise wrong(name, f"{expected} or None" if optional else expected, value)
        return float(value)

    return read


POSITIVE = number("a number above 0", lambda value: value > 0.0)
LIMIT = number("a number above 0", lambda value: value > 0.0, optional=True)
NOT_NEGATIVE = number("a finite number of at least 0", lambda value: 0.0 <= value < math.inf)


def span(least: float, *, whole: bool = False, above: bool = False) -> Reader:
    """A range low <= high of finite numbers, or one number, which pins it.

    Args:
        least: the smallest that is possible.
        whole: whole numbers only.
        above: numbers above `least`, not `least` itself.
    """
    kind = "a whole number" if whole else "a number"
    expected = f"{kind} {'above' if above else 'of at least'} {least:g}, or a pair low <= high of such numbers"

    def fits(value: Any) -> bool:
        sound = is_whole(value) if whole else is_number(value)
        return sound and value < math.inf and (value > least if above else value >= least)

    def read(name: str, value: Any) -> Range:
        several = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        pair = list(value) if several else [value, value]
        if len(pair) != 2 or not all(map(fits, pair)) or pair[0] > pair[1]:
            raise wrong(name, expected, value)
        convert = int if whole else float
        return convert(pair[0]), convert(pair[1])

    return read


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise wrong(name, "True or False", value)
    return bool(value)


def choice(*known: str) -> Reader:
    """One of a few words."""

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise wrong(name, f"one of {', '.join(map(repr, known))}", value)
        return value

    return read


def some(one: Reader, what: str) -> Reader:
    """One thing or several of a kind, such as names."""

    def read(name: str, value: Any) -> tuple[Any, ...]:
        several = isinstance(value, Sequence) and not isinstance(value, str | Workload)
        if several and not value:
            raise wrong(name, f"at least one {what}", value)
        return tuple(one(name, item) for item in value) if several else (one(name, value),)

    return read


def workload(name: str, value: Any) -> str | Workload:
    """A preset's name, a trace's path or a workload."""
    if isinstance(value, Workload):
        return value
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        raise wrong(name, "the name of a preset, the path of a trace or a Workload, or several of them", value)
    if value not in PRESETS and not Path(value).exists():
        raise SettingError(
            f"environment: {name} has {value!r}, which is neither a preset nor a file; {nearest(value, PRESETS)}"
        )
    return value


def cost(name: str, value: Any) -> CostModel | str:
    """A cost model, or the name of a preset or an engine."""
    if isinstance(value, CostModel):
        return value
    if not isinstance(value, str):
        raise wrong(name, "the name of a cost model or a CostModel, or several of them", value)
    if "@" in value:
        try:
            return find_engine(value).cost
        except EngineNameError as error:
            raise SettingError(f"environment: {name}: {error}") from None
    if value not in COSTS:
        raise SettingError(f"environment: {name} has an unknown cost model {value!r}; {nearest(value, COSTS)}")
    return value


def reward(name: str, value: Any) -> Reward:
    """A reward or its name."""
    if isinstance(value, Reward):
        return value
    if not isinstance(value, str):
        raise wrong(name, "the name of a reward or a Reward", value)
    if value not in REWARDS:
        raise SettingError(f"environment: unknown reward {value!r}; {nearest(value, REWARDS)}")
    return REWARDS[value]


def policy(name: str, value: Any) -> Policy:
    """A policy or the name of one of the table.

    The table is no part of the library, so it is looked up only where a name is given.
    """
    if isinstance(value, Policy):
        return value
    if not isinstance(value, str):
        raise wrong(name, "the name of a policy or a Policy", value)
    table: Mapping[str, Policy] = import_module("infermax_gym.baselines.policies").POLICIES
    if value not in table:
        raise SettingError(f"environment: {name} has an unknown policy {value!r}; {nearest(value, table)}")
    return table[value]


WORKLOADS = some(workload, "workload")
COST_MODELS = some(cost, "cost model")
