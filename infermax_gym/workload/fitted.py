"""Parameters fitted to public traces: quantile tables, a correlation and an arrival process for each.

They are produced by `python -m experiments.facts.fit_workloads` and hold no rows of the traces (docs/workloads.md).
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from infermax_gym.workload.arrivals import Arrivals
from infermax_gym.workload.changing_rates import Modulated, Silences
from infermax_gym.workload.lengths import Joint, Quantiles

FITTED_FILE = "fitted.json"
"""Name of the parameter file, beside this module."""


@functools.cache
def fitted_parameters() -> dict[str, Any]:
    """The parameter file, read once: parameters by the name of the preset."""
    text = resources.files("infermax_gym.workload").joinpath(FITTED_FILE).read_text(encoding="utf-8")
    workloads: dict[str, Any] = json.loads(text)["workloads"]
    return workloads


@functools.cache
def fitted_lengths(name: str) -> Joint:
    """Prompt and output lengths of a fitted preset."""
    return lengths_from_parameters(fitted_parameters()[name]["lengths"])


@functools.cache
def fitted_arrivals(name: str) -> Arrivals:
    """Arrival process of a fitted preset; only those whose trace has arrivals hold one."""
    return arrivals_from_parameters(fitted_parameters()[name]["arrivals"])


def lengths_from_parameters(parameters: dict[str, Any]) -> Joint:
    """Lengths from the `lengths` object of the parameter file."""
    scores = tuple(parameters["scores"])
    return Joint(
        prompt=Quantiles(scores, tuple(parameters["num_prompt_tokens"])),
        output=Quantiles(scores, tuple(parameters["num_output_tokens"])),
        correlation=parameters["correlation"],
    )


def arrivals_from_parameters(parameters: dict[str, Any]) -> Arrivals:
    """An arrival process from the `arrivals` object of the parameter file."""
    process = Modulated(
        rate_per_s=parameters["rate_per_s"],
        level_s=parameters["level_s"],
        scores=tuple(parameters["scores"]),
        multipliers=tuple(parameters["multipliers"]),
        correlation=parameters["correlation"],
        gap_cv=parameters["gap_cv"],
    )
    silences = parameters["silences"]
    return process if silences is None else Silences(process, **silences)
