"""A fleet as a JSON file: a list of replicas, each entry as many equal ones.

    [{"count": 2, "cost": "llama2-7b-a100", "kv_tokens": 100000},
     {"count": 6, "cost": "my-l4.json", "kv_tokens": 24000, "policy": "sarathi"}]

What an entry leaves out is as the command line says: the engine options, and `--policies`.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermax_gym import files
from infermax_gym.cli.errors import InputError
from infermax_gym.cli.fleets import check_replica
from infermax_gym.cli.inputs import EngineOptions, policy

if TYPE_CHECKING:
    from infermax_gym.evaluation import FleetPart

_ENGINE = {field.name: str(field.type).removesuffix(" | None") for field in fields(EngineOptions)}
_KEYS = ("count", "policy", *_ENGINE)
_KINDS: dict[str, tuple[type, str]] = {
    "int": (int, "a whole number"),
    "str": (str, "a name"),
    "bool": (bool, "true or false"),
}


def read_fleet(path: str, engine: EngineOptions) -> tuple[FleetPart, ...]:
    """The entries of a fleet file.

    Args:
        path: of the file; cost models named by a file are looked for beside it.
        engine: engine options of the command line.

    Raises:
        InputError: it cannot be read, or an entry is malformed.
    """
    try:
        entries = json.loads(files.read_text(path))
    except OSError as error:
        raise InputError(f"--fleet {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"--fleet {path}: not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f'--fleet {path}: expected a list of entries, such as [{{"count": 2, "kv_tokens": 50000}}]')
    return tuple(
        _part(entry, f"--fleet {path}, entry {i + 1}", Path(path).parent, engine) for i, entry in enumerate(entries)
    )


def _part(entry: Any, where: str, folder: Path, engine: EngineOptions) -> FleetPart:
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation import FleetPart
    from infermax_gym.evaluation.fleets import Sized

    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object with some of {', '.join(_KEYS)}")
    for key, value in entry.items():
        _check(key, value, where)
    given = {key: value for key, value in entry.items() if key in _ENGINE}
    cost = given.get("cost", "")
    if cost.endswith(".json") and os.path.exists(folder / cost):
        given["cost"] = str(folder / cost)
    try:
        chosen = policy(entry["policy"]) if "policy" in entry else None
        if chosen is not None:
            check_replica(entry["policy"], chosen)
        config = replace(engine, **given).config()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return FleetPart(entry.get("count", 1), config, chosen if isinstance(chosen, Policy | Sized) else None)


def _check(key: str, value: Any, where: str) -> None:
    if key not in _KEYS:
        raise InputError(f"{where}: unknown {key!r}; expected some of {', '.join(_KEYS)}")
    kind, words = _KINDS[{"count": "int", "policy": "str"}.get(key) or _ENGINE[key]]
    small = isinstance(value, int) and kind is int and value < 1
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or small:
        least = " of at least 1" if kind is int else ""
        raise InputError(f"{where}: {key} must be {words}{least}, got {json.dumps(value)}")


def described(parts: tuple[FleetPart, ...]) -> list[dict[str, Any]]:
    """The entries as they were understood, for the report."""
    return [
        {
            "count": part.count,
            "cost": part.config.cost.name,
            "kv_tokens": part.config.num_kv_tokens,
            "policy": None if part.policy is None else part.policy.name,
        }
        for part in parts
    ]
