"""From what was typed to what is tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from infermax_gym.cli import inputs, output
from infermax_gym.cli.errors import InputError
from infermax_gym.cli.tune_commands import Repeat

if TYPE_CHECKING:
    from infermax_gym.cluster import PythonRouter, Router
    from infermax_gym.cost.engines import Engine
    from infermax_gym.engine import EngineConfig
    from infermax_gym.evaluation import Contender, WorkloadSpec
    from infermax_gym.evaluation.tuning import Bound, Problem
    from infermax_gym.evaluation.tuning_objective import Objective
    from infermax_gym.evaluation.tuning_space import Space
    from infermax_gym.evaluation.tuning_windows import Windows
    from infermax_gym.workload import Workload

POLICIES = (
    "spf-share",
    "hrrn-share",
    "spf-aging-share",
    "fcfs-share",
    "spf-headroom",
    "fcfs-headroom",
    "spf-aging-headroom",
    "shortest-prompt-first",
    "least-attained-service",
    "hrrn",
    "larry",
    "best-fit",
    "edf",
    "llf",
    "slai",
    "dynamic-chunk",
    "vllm-least-computed",
    "vllm-min-chunk",
    "vllm-prefill-slots",
    "rollout",
)
"""Policies of the catalogue that are worth trying: they know no output lengths."""

AGENTS = ("any-engine", "generalist", "goodput", "conv-evolved", "mixed-evolved", "reasoning-evolved")
"""Shipped agents that know none either."""

_WINDOW_REQUESTS = 1000
_WINDOW_REQUESTS_IN_PYTHON = 100  # SGLang's scheduler decides in Python, a hundred times slower


@dataclass(frozen=True)
class Asked:
    """What was typed, checked."""

    engine: inputs.EngineOptions
    backend: str | None
    replicas: int
    spec: WorkloadSpec
    objective: str
    slo: str | None
    attainment: float
    budget_s: float
    windows: int
    window_requests: int | None
    random_settings: int
    seed: int
    jobs: int


def find_problem(asked: Asked) -> tuple[Problem, Repeat]:
    """What is tuned, and how its figures are had again."""
    from infermax_gym.evaluation.tuning import Problem
    from infermax_gym.evaluation.tuning_space import SPACES
    from infermax_gym.evaluation.tuning_windows import is_random, search_and_held_out
    from infermax_gym.workload import WorkloadError

    typed, named = _engine(asked)
    space = SPACES[asked.backend or (named.backend if named is not None else "vllm")]
    most = asked.window_requests or (_WINDOW_REQUESTS_IN_PYTHON if space.backend == "sglang" else _WINDOW_REQUESTS)
    try:
        windows = search_and_held_out(asked.spec, asked.windows, most)
    except WorkloadError as error:
        raise InputError(f"--workload {error}") from None
    config = replace(typed.config(), **dict(space.sizes))  # type: ignore[arg-type]
    resolve = _resolver()
    inputs.check_async([config], {space.policy: resolve(space.policy)})
    if asked.replicas > 1 and config.async_scheduling:
        raise InputError("--async-scheduling is modelled on one engine; leave it or --replicas out")
    search, held_out = (_requests(each, asked, config) for each in windows)
    objective = _objective(asked, search[0])
    space = replace(space, replicas=asked.replicas)
    engines: dict[str, EngineConfig] = {}
    if named is not None and typed.kv_tokens is None and space.backend != "sglang" and not typed.async_scheduling:
        space, engines = _parallel(space, named, typed, asked)
    space = space.without([*search, *held_out])
    routed = asked.replicas > 1 or any(choice.replicas for flag in space.flags for choice in flag.choices)
    if asked.replicas > 1 and space.backend == "sglang":
        raise InputError("--replicas: SGLang's scheduler decides in Python, which replicas of a fleet cannot")
    problem = Problem(
        space,
        config,
        engines,
        _routers() if routed else {},
        resolve,
        _policies(asked.replicas > 1 or asked.objective == "cost" or bool(typed.async_scheduling)),
        search,
        held_out,
        objective,
        inputs.slo(asked.slo),
        asked.attainment,
        _bound(asked, objective, held_out),
        asked.budget_s,
        asked.jobs,
        asked.seed,
        asked.random_settings,
    )
    attainment = asked.attainment if asked.objective == "cost" else None
    return problem, Repeat(asked.spec, windows[1], is_random(asked.spec), typed, asked.slo, attainment)


def _engine(asked: Asked) -> tuple[inputs.EngineOptions, Engine | None]:
    """The engine options, with the backend that was asked for, and the engine of the table if they name one."""
    typed = asked.engine
    named = None if typed.cost is None else inputs.named_engine(typed.cost)
    if named is not None and asked.backend is not None and named.backend != asked.backend:
        from infermax_gym.cost.engines import EngineName

        name = EngineName.parse(named.name)
        typed = replace(typed, cost=str(replace(name, backend=asked.backend)))
        named = inputs.named_engine(typed.cost or "")
    return typed, named


def _requests(windows: Windows, asked: Asked, config: EngineConfig) -> list[Workload]:
    """The requests of every window."""
    many = [inputs.load(windows, window, [config]) for window in range(windows.count)]
    if asked.objective == "cost" and any(len(each) < 10 or each.is_closed_loop for each in many):
        raise InputError(
            "--objective cost needs windows of at least 10 requests that arrive by themselves: fewer --windows, no "
            "--concurrency or --sessions"
        )
    return many


def _objective(asked: Asked, workload: Workload) -> Objective:
    from infermax_gym.evaluation.tuning_objective import COST, LATENCY, goodput

    return {"goodput": goodput(workload.is_closed_loop), "latency": LATENCY, "cost": COST}[asked.objective]


def _parallel(
    space: Space, named: Engine, typed: inputs.EngineOptions, asked: Asked
) -> tuple[Space, dict[str, EngineConfig]]:
    """The space with what the table of engines has of the model on this GPU."""
    from infermax_gym.evaluation.tuning_engines import sizes, splits, with_parallelism

    if asked.objective == "cost":
        if asked.replicas > 1:
            raise InputError("--replicas: --objective cost is about one engine; more of them cost as much per token")
        found: Mapping[str, int] = sizes(named)
    else:
        found = splits(named, asked.replicas)
    configs = {name: replace(typed, cost=name).config() for name in found}
    engines = {name: replace(config, **dict(space.sizes)) for name, config in configs.items()}  # type: ignore[arg-type]
    return with_parallelism(space, named, asked.replicas, found), engines


def _resolver() -> Callable[[str], Contender]:
    """Policies by name, with knobs; looks through installed packages once for each name."""
    from infermax_gym.baselines.prefix_aware.sglang import Sglang
    from infermax_gym.cli.knobs import with_knobs
    from infermax_gym.engine import Policy

    base = cache(inputs.policy)

    def resolve(name: str) -> Contender:
        first, *knobs = name.split("+")
        found = base(first)
        if not knobs or not isinstance(found, Policy | Sglang):
            return found
        return with_knobs(found, knobs, name)

    return resolve


def _routers() -> Mapping[str, Router | PythonRouter]:
    from infermax_gym.baselines.routers import ROUTERS

    return ROUTERS


def _policies(table_only: bool) -> dict[str, Contender | None]:
    """Our policies by name; agents that cannot be read here are left out with a word."""
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation.fleets import Sized

    chosen: dict[str, Contender | None] = {
        name: None for name in POLICIES if not table_only or isinstance(inputs.policy(name), Policy | Sized)
    }
    if table_only:
        return chosen
    for name in AGENTS:
        try:
            chosen[name] = inputs.agent(name)
        except InputError as error:
            output.warn(f"agents are left out: {error}")
            break
    return chosen


def _bound(asked: Asked, objective: Objective, held_out: list[Workload]) -> Bound | None:
    """What nobody can beat, where that can be proven."""
    from infermax_gym.evaluation.tuning_space import has_prefixes

    limits = inputs.slo(asked.slo)
    closed = any(each.is_closed_loop or has_prefixes(each) for each in held_out)
    if closed or asked.replicas > 1:
        return None
    if objective.name == "latency":
        return least_latency
    return most_attained if objective.name == "goodput" and limits is not None and limits.ttft_s is not None else None


def least_latency(problem: tuple[Workload, EngineConfig]) -> float:
    """No schedule has a lower mean latency, in seconds."""
    from infermax_gym.baselines.optimum.bounds import certify

    return certify(*problem).mean_latency_s


def most_attained(problem: tuple[Workload, EngineConfig]) -> float:
    """No schedule has a larger share of requests within their limits."""
    from infermax_gym.baselines.optimum.in_time import most_in_time

    workload, config = problem
    return most_in_time(workload, config) / len(workload)
