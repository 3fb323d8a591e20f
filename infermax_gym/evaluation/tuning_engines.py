"""The same GPUs in other groups: tensor parallelism and replicas that the table of engines has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from infermax_gym.cost.engines import Engine, engines
from infermax_gym.evaluation.tuning_space import Choice, Flag, Space

TENSOR_PARALLEL = {"vllm": "--tensor-parallel-size", "sglang": "--tp-size", "trtllm": "--tp_size"}
ROUTER = "router"
"""Not a flag of the engine, but of whatever stands in front of its replicas."""

_MOST_GPUS = 64
_ROUTERS = ("round-robin", "least-outstanding", "power-of-two", "vllm-dp", "sal")


def splits(engine: Engine, replicas: int) -> Mapping[str, int]:
    """Names of engines of the table that make the same of the same GPUs, and how many of each there are then.

    Example:
        >>> from infermax_gym.cost.engines import find_engine
        >>> splits(find_engine("qwen3-32b@h100x2"), 1)
        {'qwen3-32b@h100': 2, 'qwen3-32b@h100x2': 1}
    """
    gpus = engine.tensor_parallel * replicas
    alike = [
        other
        for other in engines().values()
        if (other.model, other.gpu, other.backend) == (engine.model, engine.gpu, engine.backend)
        if (other.weights_dtype, other.kv_dtype) == (engine.weights_dtype, engine.kv_dtype)
        if gpus % other.tensor_parallel == 0
    ]
    ordered = sorted(alike, key=lambda other: other.tensor_parallel)
    return {other.name: gpus // other.tensor_parallel for other in ordered}


def sizes(engine: Engine) -> Mapping[str, int]:
    """Names of engines of the table that make the same on other numbers of the same GPU, one of each."""
    return {name: 1 for name in splits(replace(engine, tensor_parallel=_MOST_GPUS), 1)}


def with_parallelism(space: Space, engine: Engine, replicas: int, found: Mapping[str, int]) -> Space:
    """The space with flags for tensor parallelism, replicas and routers, where there is a choice.

    Args:
        space: of the engine's backend.
        engine: as it is today.
        replicas: as they are today.
        found: replicas by the name of an engine: `splits` or `sizes`.
    """
    table = engines()
    choices = tuple(Choice(table[name].tensor_parallel, engine=name, replicas=count) for name, count in found.items())
    flags = list(space.flags)
    if len(choices) > 1:
        source = "the table of engines (docs/costs.md)"
        flags.append(Flag(TENSOR_PARALLEL[space.backend], choices, engine.tensor_parallel, source))
    if max([replicas, *found.values()]) > 1:
        routers = tuple(Choice(name, router=name) for name in _ROUTERS)
        flags.append(Flag(ROUTER, routers, space.router, "docs/cluster.md"))
    return replace(space, flags=tuple(flags), replicas=replicas)
