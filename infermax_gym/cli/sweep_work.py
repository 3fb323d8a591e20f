"""What is done with one scenario of a sweep, in whatever process it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import inputs
from infermax_gym.cli.sweep_config import contender_of, engine_of, spec_of

if TYPE_CHECKING:
    from infermax_gym.engine import EngineConfig
    from infermax_gym.evaluation import Contender
    from infermax_gym.workload import Workload


def load(recipe: Mapping[str, Any]) -> Workload:
    """The requests of a workload, a load and a seed."""
    return inputs.load(spec_of(recipe["workload"], recipe["load"]), recipe["seed"])


def run(argument: Mapping[str, Any], workload: Workload) -> dict[str, Any]:
    """The figures of a scenario, by flat names; the same for the same scenario, so without wall time."""
    from infermax_gym.baselines.predict import predictions
    from infermax_gym.evaluation import flatten, run_contender
    from infermax_gym.evaluation.contenders import information_of, with_slo

    slo = inputs.slo(argument["slo"])
    contender, config = _contender(_text(argument)), _engine(json.dumps(argument["engine"]))
    limited = with_slo(workload, slo)
    served = run_contender(contender, limited, config, seed=argument["seed"], predict=predictions)
    figures = flatten(served.figures(config, slo))
    figures.pop("wall_s")
    flat = {name.replace(".", "_"): value for name, value in figures.items()}
    return {"information": information_of(contender), **flat}


def about(argument: Mapping[str, Any]) -> dict[str, Any]:
    """What a scenario was, as columns."""
    config, traffic, chosen = _engine(json.dumps(argument["engine"])), argument["load"], argument["workload"]
    return {
        "policy": argument.get("policy") or argument["agent"],
        "workload": chosen["source"],
        "skip": chosen.get("skip", 0),
        "first": chosen.get("first"),
        "load": ",".join(f"{name}={value}" for name, value in sorted(traffic.items())),
        **{name: traffic.get(name) for name in ("rate", "time_scale", "concurrency")},
        "cost": config.cost.name,
        "kv_tokens": config.num_kv_tokens,
        "block_size": config.block_size,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_num_seqs": config.max_num_seqs,
        "seed": argument["seed"],
        "slo": argument["slo"] or "",
    }


def _text(argument: Mapping[str, Any]) -> str:
    return json.dumps({name: argument[name] for name in ("policy", "agent") if name in argument})


@lru_cache(maxsize=256)
def _contender(text: str) -> Contender:
    return contender_of(json.loads(text))


@lru_cache(maxsize=256)
def _engine(text: str) -> EngineConfig:
    return engine_of(json.loads(text))
