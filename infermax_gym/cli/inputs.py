"""From what was typed to what the library takes; everything wrong becomes an `InputError`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import own
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.cost.engines import Engine
    from infermax_gym.engine import EngineConfig, Slo
    from infermax_gym.evaluation import Contender, WorkloadSpec
    from infermax_gym.evaluation.groups import By
    from infermax_gym.evaluation.scenario import Reader
    from infermax_gym.evaluation.tuning_windows import Windows
    from infermax_gym.workload import Traffic, Workload, WorkloadPreset

_SLO_NAMES = ("ttft", "tpot", "latency")


@dataclass(frozen=True)
class EngineOptions:
    """Engine options as typed; None where the engine's default holds."""

    cost: str | None = None
    kv_tokens: int | None = None
    block_size: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    max_output_tokens: int | None = None
    prefix_caching: bool | None = None
    empty_blocks_first: bool | None = None
    async_scheduling: bool | None = None

    def config(self) -> EngineConfig:
        """The engine they describe."""
        from infermax_gym.engine import EngineConfig

        typed = {"num_kv_tokens" if name == "kv_tokens" else name: value for name, value in vars(self).items()}
        typed["cost"] = None if self.cost is None else cost_model(self.cost)
        engine = None if self.cost is None else named_engine(self.cost)
        sizes: dict[str, Any] = {} if engine is None else dict(engine.sizes)
        try:
            return EngineConfig(**sizes | {name: value for name, value in typed.items() if value is not None})
        except ValueError as error:
            raise InputError(str(error).replace("num_kv_tokens", "--kv-tokens")) from None


def named_engine(name: str) -> Engine | None:
    """The engine of a name with an @ in it; None if the name is another one."""
    from infermax_gym.cost.engines import EngineNameError, find_engine

    if "@" not in name or name.endswith(".json"):
        return None
    try:
        return find_engine(name)
    except EngineNameError as error:
        raise InputError(
            f"--cost: {error}; `infermax cost {name} -o cost.json` estimates it from data sheets"
        ) from None


def cost_model(name: str) -> CostModel:
    """A cost preset or an engine by name, or a cost model file by path."""
    from infermax_gym.cost import COSTS, CostModelError, load_cost_model

    engine = named_engine(name)
    if engine is not None:
        return engine.cost
    if not name.endswith(".json") and (name in COSTS or not os.path.exists(name)):
        model: CostModel = own.look_up("costs", name, COSTS)
        return model
    try:
        return load_cost_model(name)
    except CostModelError as error:
        raise InputError(str(error)) from None


def workload_spec(
    source: str,
    skip: int,
    first: int | None,
    time_scale: float | None,
    rate: float | None,
    traffic: Traffic | None = None,
    **chosen: Any,
) -> WorkloadSpec:
    """The recipe for the workload; `chosen` are choices of rows, such as `from_s` or `model`."""
    from infermax_gym.evaluation import WorkloadSpec
    from infermax_gym.workload import WorkloadError

    for name, value in (("--time-scale", time_scale), ("--rate", rate)):
        if value is not None and not (math.isfinite(value) and value > 0.0):
            raise InputError(f"{name} must be a positive number, got {value:g}")
    if time_scale is not None and rate is not None:
        raise InputError("--time-scale and --rate exclude each other; give one of them")
    scale = 1.0 if time_scale is None else time_scale
    if traffic is not None:
        chosen["traffic"] = traffic
    try:
        return WorkloadSpec(source, skip, first, scale, rate, _made_by(source), **chosen)
    except WorkloadError as error:
        raise InputError(str(error)) from None


def traffic(
    concurrency: int | None, think_s: float | None, ramp_up_s: float, sessions: bool, rate: float | None
) -> Traffic:
    """Who sends the requests, and when."""
    from infermax_gym.workload import Traffic, WorkloadError

    if concurrency is not None and rate is not None:
        raise InputError("--concurrency and --rate exclude each other: clients send when their last request has ended")
    try:
        return Traffic(concurrency, think_s, ramp_up_s, sessions)
    except WorkloadError as error:
        message = str(error)
        for name, option in (("think_s", "--think-time"), ("ramp_up_s", "--ramp-up"), ("sessions", "--sessions")):
            message = message.replace(name, option)
        raise InputError(message.replace("concurrency", "--concurrency")) from None


def _made_by(source: str) -> WorkloadPreset | Reader | None:
    """The preset, or the reader of READER:PATH, that an installed package adds; None where the source is ours."""
    from infermax_gym.plugins import PluginError, find_plugins
    from infermax_gym.workload import PRESETS, WorkloadPreset
    from infermax_gym.workload.presets import UNIFORM, uniform_preset

    name, colon, _ = source.partition(":")
    if source in PRESETS or os.path.exists(source):
        return None
    if source.startswith(UNIFORM):
        return uniform_preset(source)
    found, wrong = find_plugins("workloads", PRESETS)
    if name in wrong and name not in PRESETS:
        raise InputError(wrong[name])
    if name not in found:
        return None
    try:
        made_by: WorkloadPreset | Reader = found[name].load()
    except PluginError as error:
        raise InputError(f"workload {error}") from None
    if isinstance(made_by, WorkloadPreset) == bool(colon):
        expected = f"--workload {name}" if colon else f"--workload {name}:PATH"
        kind = "a preset" if colon else "a reader of trace files"
        raise InputError(f"--workload {source}: {name!r} is {kind}; expected {expected}")
    return made_by


def load(spec: WorkloadSpec | Windows, seed: int, engines: Sequence[EngineConfig] = ()) -> Workload:
    """The requests of a seed, whose outputs must keep what the engines promise their schedulers."""
    from infermax_gym.plugins import in_one_line
    from infermax_gym.workload import WorkloadError

    try:
        requests = spec(seed)
    except WorkloadError as error:
        raise InputError(str(error)) from None
    except Exception as error:
        if spec.made_by is None:
            raise
        raise InputError(f"--workload {spec.source}: its package raised {in_one_line(error)}") from None
    for engine in engines:
        try:
            requests.check_output_bound(engine.max_output_tokens)
        except WorkloadError as error:
            raise InputError(str(error).replace("max_output_tokens = ", "--max-output-tokens ")) from None
    return requests


def check_windows(spec: WorkloadSpec, windows: int | None) -> None:
    """Whether a workload has windows: trace files do, presets have seeds."""
    from infermax_gym.evaluation.tuning_windows import is_random

    if windows is not None and is_random(spec):
        raise InputError(f"--windows {windows}: {spec.source} is a preset, which has seeds: take --seeds {windows}")


def windowed(spec: WorkloadSpec, windows: int | None, seeds: int) -> WorkloadSpec | Windows:
    """The recipe, or its windows, which then take the place of seeds."""
    from infermax_gym.evaluation.tuning_windows import split
    from infermax_gym.workload import WorkloadError

    if windows is None:
        return spec
    check_windows(spec, windows)
    if seeds > 1:
        raise InputError("--windows and --seeds exclude each other: means are over one of them")
    try:
        return split(spec, windows)
    except WorkloadError as error:
        raise InputError(f"--windows {windows}: {error}") from None


def contenders(policies: str | None, agents: Sequence[str] | None, trust_pickle: bool = False) -> dict[str, Contender]:
    """Policies by name and agents by path; every policy of ours that is fast if neither was asked for."""
    from infermax_gym.baselines.catalogue import QUICK

    names = names_in(policies or ("all" if policies is None and not agents else ""))
    chosen: dict[str, Contender] = dict(QUICK) if names == ["all"] else {name: policy(name) for name in names}
    chosen |= {path: agent(path, trust_pickle) for path in agents or ()}
    if not chosen:
        raise InputError("--policies names no policy; expected all, or names separated by commas")
    return chosen


def policy(name: str) -> Contender:
    """A scheduler by name, of ours or of an installed package, or `module:name`; `+knob=value` sets knobs."""
    from infermax_gym.baselines.catalogue import SCHEDULERS
    from infermax_gym.baselines.prefix_aware.sglang import Sglang
    from infermax_gym.cli.knobs import with_knobs
    from infermax_gym.engine import Policy

    base, *knobs = name.split("+")
    chosen: Contender = own.look_up("policies", base, SCHEDULERS)
    if isinstance(chosen, Policy) and base in SCHEDULERS.aliases:
        chosen = replace(chosen, name=base)  # results have the name that was typed
    if not knobs:
        return chosen
    if not isinstance(chosen, Policy | Sglang):
        raise InputError(f"policy {name!r}: {base!r} has no knobs; it is no policy of the table")
    return with_knobs(chosen, knobs, name)


def check_async(engines: Sequence[EngineConfig], chosen: Mapping[str, Contender]) -> None:
    """Asynchronous scheduling goes with policies of the table, on one engine.

    Raises:
        InputError: somebody else is to run an engine that schedules so.
    """
    from infermax_gym.engine import Policy

    others = [name for name, contender in chosen.items() if not isinstance(contender, Policy)]
    if others and any(engine.async_scheduling for engine in engines):
        raise InputError(
            f"--async-scheduling is modelled for policies of the table on one engine; {others[0]!r} is something else: "
            "leave one of them out"
        )


def names_in(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def agent(path: str, trust_pickle: bool = False) -> Contender:
    """A trained policy from its file, or a shipped one by its name."""
    try:
        from infermax_gym.agents import load_agent

        contender: Contender = load_agent(path, trust_pickle=trust_pickle)
    except ImportError as error:
        raise InputError(f"--agent {path}: {error}") from None
    except ValueError as error:
        raise InputError(f"--agent {error}") from None
    return contender


def slo(text: str | None) -> Slo | None:
    """`ttft=2.0,tpot=0.1,latency=30` as limits."""
    from infermax_gym.engine import Slo

    limits = slo_limits(text)
    return None if limits is None else Slo(**{f"{name}_s": limits.get(name) for name in _SLO_NAMES})


def slo_limits(text: str | None) -> dict[str, float] | None:
    """The limits of `--slo` by name, in seconds."""
    if text is None:
        return None
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        name = name.strip()
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in _SLO_NAMES or name in limits or not (math.isfinite(value) and value > 0.0):
            raise InputError(
                f"--slo {text!r}: cannot read {part.strip()!r}; expected ttft=S, tpot=S or latency=S, each once, "
                "in seconds, separated by commas"
            )
        limits[name] = value
    return limits


def groups(by: str | None) -> By | None:
    """What `--by` makes groups of."""
    if by is None:
        return None
    known: dict[str, By] = {"tenant": "tenant", "slo-class": "slo-class"}
    if by not in known:
        raise InputError(f"--by must be tenant or slo-class, got {by!r}")
    return known[by]
