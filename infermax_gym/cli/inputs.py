"""From what was typed to what the library takes; everything wrong becomes an `InputError`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermax_gym.cli.errors import InputError, unknown

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.engine import EngineConfig, Slo
    from infermax_gym.evaluation import Contender, WorkloadSpec
    from infermax_gym.evaluation.groups import By
    from infermax_gym.workload import Workload

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

    def config(self) -> EngineConfig:
        """The engine they describe."""
        from infermax_gym.engine import EngineConfig

        sizes = {"num_kv_tokens" if name == "kv_tokens" else name: value for name, value in vars(self).items()}
        sizes["cost"] = None if self.cost is None else cost_model(self.cost)
        try:
            return EngineConfig(**{name: value for name, value in sizes.items() if value is not None})
        except ValueError as error:
            raise InputError(str(error).replace("num_kv_tokens", "--kv-tokens")) from None


def cost_model(name: str) -> CostModel:
    """A cost preset by name, or a cost model file by path."""
    from infermax_gym.cost import COSTS, CostModelError, load_cost_model

    if name in COSTS:
        return COSTS[name]
    if not name.endswith(".json") and not Path(name).exists():
        raise unknown("cost model", name, COSTS, "infermax list costs")
    try:
        return load_cost_model(name)
    except CostModelError as error:
        raise InputError(str(error)) from None


def workload_spec(
    source: str, skip: int, first: int | None, time_scale: float | None, rate: float | None
) -> WorkloadSpec:
    """The recipe for the workload."""
    from infermax_gym.evaluation import WorkloadSpec

    for name, value in (("--time-scale", time_scale), ("--rate", rate)):
        if value is not None and not (math.isfinite(value) and value > 0.0):
            raise InputError(f"{name} must be a positive number, got {value:g}")
    if time_scale is not None and rate is not None:
        raise InputError("--time-scale and --rate exclude each other; give one of them")
    return WorkloadSpec(source, skip, first, 1.0 if time_scale is None else time_scale, rate)


def load(spec: WorkloadSpec, seed: int) -> Workload:
    """The requests of a seed."""
    from infermax_gym.workload import WorkloadError

    try:
        return spec(seed)
    except WorkloadError as error:
        raise InputError(str(error)) from None


def contenders(policies: str | None, agents: Sequence[str] | None, trust_pickle: bool = False) -> dict[str, Contender]:
    """Policies by name and agents by path; every policy if neither was asked for."""
    if policies is None:
        policies = "" if agents else "all"
    names = names_in(policies)
    if names == ["all"]:
        from infermax_gym.baselines.catalogue import QUICK

        names = list(QUICK)
    chosen = {name: policy(name) for name in names} | {path: agent(path, trust_pickle) for path in agents or ()}
    if not chosen:
        raise InputError("--policies names no policy; expected all, or names separated by commas")
    return chosen


def policy(name: str) -> Contender:
    """A scheduler by name."""
    from infermax_gym.baselines.catalogue import SCHEDULERS

    if name not in SCHEDULERS:
        raise unknown("policy", name, SCHEDULERS, "infermax list policies")
    chosen: Contender = SCHEDULERS[name]
    return chosen


def names_in(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def agent(path: str, trust_pickle: bool = False) -> Contender:
    """A trained policy from its file, or a shipped one by its name."""
    try:
        load_agent = import_module("infermax_gym.agents").load_agent
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


def resolved(
    spec: WorkloadSpec, workload: Workload, config: EngineConfig, slo_text: str | None, **more: Any
) -> dict[str, Any]:
    """Every option as it was understood, for the report."""
    last = float(workload.arrival_s[-1]) if len(workload) else 0.0
    return {
        "workload": spec.source,
        "skip": spec.skip,
        "first": spec.first,
        "time_scale": spec.time_scale,
        "rate": spec.rate,
        "num_requests": len(workload),
        "span_s": last,
        "cost": config.cost.name,
        "kv_tokens": config.num_kv_tokens,
        "block_size": config.block_size,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_num_seqs": config.max_num_seqs,
        "max_model_len": config.max_model_len,
        "max_output_tokens": config.max_output_tokens,
        "num_host_kv_tokens": config.num_host_kv_tokens,
        "swap_tokens_per_s": config.swap_tokens_per_s,
        "prefix_caching": config.prefix_caching,
        "slo": slo_limits(slo_text),
        **more,
    }
