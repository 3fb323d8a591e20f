"""The configuration of a sweep: what is crossed with what, checked as the options of a command are."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import inputs
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.engine import EngineConfig
    from infermax_gym.evaluation import Contender, WorkloadSpec
    from infermax_gym.sweep import Task

MAX_NUM_SCENARIOS = 1_000_000

_WORKLOAD = {
    "source": "str", "skip": "int", "first": "int", "from_s": "float", "to_s": "float", "model": "str",
    "log_type": "str",
}  # fmt: skip
_ENGINE = {field.name: str(field.type).removesuffix(" | None") for field in fields(inputs.EngineOptions)}
_LOAD = {
    "rate": "float", "time_scale": "float", "concurrency": "int", "think_time": "float", "ramp_up": "float",
    "sessions": "bool",
}  # fmt: skip
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a name"),
    "bool": ((bool,), "true or false"),
}
_ENTRIES = ("policies", "agents", "workloads", "engines", "loads", "seeds", "slo")


@dataclass(frozen=True)
class SweepConfig:
    """What is crossed with what; entries as in the file, with the short forms written out.

    Attributes:
        contenders: policies by name, and agents by path.
        workloads: entries of `_WORKLOAD`.
        engines: entries of `EngineOptions`.
        loads: entries of `_LOAD`.
        seeds: all of them.
        slo: as `--slo`.
    """

    contenders: tuple[dict[str, str], ...]
    workloads: tuple[dict[str, Any], ...]
    engines: tuple[dict[str, Any], ...]
    loads: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...]
    slo: str | None

    def __len__(self) -> int:
        return (
            len(self.contenders) * len(self.workloads) * len(self.engines) * len(self.loads) * len(self.seeds)
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def read_config(path: Path) -> SweepConfig:
    """Read and check CONFIG.yaml.

    Raises:
        InputError: it cannot be read, or an entry cannot be used; one line.
    """
    from infermax_gym.sweep import StoreError
    from infermax_gym.sweep.document import read_document

    try:
        document = read_document(path)
    except StoreError as error:
        raise InputError(str(error)) from None
    for name in document:
        if name not in _ENTRIES:
            raise InputError(f"{path}: unknown entry {name!r}; expected some of {', '.join(_ENTRIES)}")
    where = f"{path}: "
    contenders = [{"policy": name} for name in _names(document, "policies", where)]
    contenders += [{"agent": name} for name in _names(document, "agents", where)]
    if not contenders:
        raise InputError(f"{path}: names no policy; expected `policies: [vllm, sarathi]`")
    workloads = _list(document.get("workloads"), f"{where}workloads", "source", str, _WORKLOAD)
    engines = _list(document.get("engines", [{}]), f"{where}engines", "cost", str, _ENGINE)
    loads = _list(document.get("loads", [{}]), f"{where}loads", "rate", (int, float), _LOAD)
    for entry in workloads:
        if "source" not in entry:
            raise InputError(f"{where}workloads: an entry has no source, which is a preset or the path of a trace")
    slo = document.get("slo")
    if slo is not None and not isinstance(slo, str):
        raise InputError(f"{where}slo must be text such as ttft=2.0,tpot=0.1, got {json.dumps(slo, default=str)}")
    inputs.slo(slo)
    seeds = _seeds(document.get("seeds", 1), where)
    config = SweepConfig(tuple(contenders), tuple(workloads), tuple(engines), tuple(loads), seeds, slo)
    if len(config) > MAX_NUM_SCENARIOS:
        raise InputError(f"{where}is a sweep of {len(config):,} scenarios; at most {MAX_NUM_SCENARIOS:,} in one")
    return config


def _names(document: Mapping[str, Any], key: str, where: str) -> list[str]:
    names = document.get(key, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}{key} must be a list of names, got {json.dumps(names, default=str):.80}")
    return list(dict.fromkeys(names))


def _list(entries: Any, where: str, short: str, kind: Any, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """Entries with their short forms, such as a bare rate, written out."""
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where} must be a list with at least one entry")
    written = []
    for number, entry in enumerate(entries, 1):
        whole = {short: entry} if isinstance(entry, kind) and not isinstance(entry, bool) else entry
        if not isinstance(whole, dict):
            raise InputError(f"{where}, entry {number}: expected an object with some of {', '.join(known)}")
        for name, value in whole.items():
            _check(name, value, f"{where}, entry {number}", known)
        written.append(whole)
    return written


def _check(name: Any, value: Any, where: str, known: Mapping[str, str]) -> None:
    if name not in known:
        raise InputError(f"{where}: unknown {name!r}; expected some of {', '.join(known)}")
    kinds, words = _KINDS[known[name]]
    least = 0 if name == "skip" else 1
    low = kinds == (int,) and isinstance(value, int) and not least <= value < 2**53
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or low:
        from_where = f" from {least}" if kinds == (int,) else ""
        raise InputError(f"{where}: {name} must be {words}{from_where}, got {json.dumps(value, default=str):.80}")


def _seeds(given: Any, where: str) -> tuple[int, ...]:
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MAX_NUM_SCENARIOS:
        return tuple(range(given))
    sound = isinstance(given, list) and given
    if sound and all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**53 for seed in given):
        return tuple(dict.fromkeys(given))
    raise InputError(f"{where}seeds must be how many, or a list of them, got {json.dumps(given, default=str):.80}")


def engine_of(entry: Mapping[str, Any]) -> EngineConfig:
    """The engine of an entry."""
    return inputs.EngineOptions(**entry).config()


def contender_of(entry: Mapping[str, str]) -> Contender:
    """The policy or agent of an entry."""
    return inputs.policy(entry["policy"]) if "policy" in entry else inputs.agent(entry["agent"])


def spec_of(workload: Mapping[str, Any], load: Mapping[str, Any]) -> WorkloadSpec:
    """The recipe for the requests of a workload under a load."""
    traffic = inputs.traffic(
        load.get("concurrency"), load.get("think_time"), load.get("ramp_up", 0.0), load.get("sessions", False),
        load.get("rate"),
    )  # fmt: skip
    choices = {name: workload.get(name) for name in ("from_s", "to_s", "model", "log_type")}
    return inputs.workload_spec(
        workload["source"], workload.get("skip", 0), workload.get("first"), load.get("time_scale"), load.get("rate"),
        traffic, **choices,
    )  # fmt: skip


def tasks_of(config: SweepConfig) -> Iterator[Task]:
    """All scenarios, those of the same requests together; each resolved once, so that what is wrong is said at once.

    Raises:
        InputError: a name is unknown, or sizes do not go together.
    """
    from infermax_gym.sweep import Shared, Task, key_of

    identities = {json.dumps(one): _identity(contender_of(one), one) for one in config.contenders}
    engines = [(entry, _engine_identity(engine_of(entry))) for entry in config.engines]
    for (workload, load), seed in itertools.product(itertools.product(config.workloads, config.loads), config.seeds):
        spec_of(workload, load)
        recipe = {"workload": workload, "load": load, "seed": seed}
        source = {**recipe, "content": _content(workload["source"])}
        shared = Shared(key_of(source), recipe)
        for (entry, engine), one in itertools.product(engines, config.contenders):
            described = {"requests": source, "engine": engine, "contender": identities[json.dumps(one)]}
            argument = {**recipe, "engine": entry, **one, "slo": config.slo}
            yield Task(key_of({**described, "slo": config.slo}), argument, shared)


def _engine_identity(config: EngineConfig) -> dict[str, Any]:
    plain = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "cost"}
    return {**{name: repr(value) for name, value in plain.items()}, "cost": config.cost.to_json()}


def _identity(contender: Contender, entry: Mapping[str, str]) -> str:
    """What a contender is: its knobs, its file, or the source it was read from."""
    from infermax_gym.engine import Policy

    if isinstance(contender, Policy):
        return repr(contender)
    if "agent" in entry:
        from infermax_gym.agents.cards import resolve

        return _content(str(resolve(entry["agent"]))) or entry["agent"]
    return f"{entry['policy']} {_content(inspect.getsourcefile(type(contender)) or '')}"


@lru_cache(maxsize=256)
def _content(path: str) -> str | None:
    """SHA-256 of a file; None where there is none, as of a preset."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
