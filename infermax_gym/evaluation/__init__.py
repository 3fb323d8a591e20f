"""Comparing policies fairly: the same requests, the same engine, several seeds, honest intervals.

Start with `scenario.py` (what is compared), `contenders.py` (how each is run, and what it is told), then `document.py`
and `report.py` (what is shown); `capacity.py` asks how much a fleet carries.
"""

from infermax_gym.engine import Player
from infermax_gym.evaluation.capacity import (
    Capacity,
    Concurrency,
    Demand,
    Sizing,
    find_capacity,
    find_concurrency,
    find_smallest,
)
from infermax_gym.evaluation.capacity_report import render_capacity
from infermax_gym.evaluation.contenders import (
    Contender,
    Served,
    information_of,
    no_predictions,
    run_contender,
    serve,
    with_slo,
)
from infermax_gym.evaluation.details import details_document, details_of
from infermax_gym.evaluation.document import comparison_document, resolved_options
from infermax_gym.evaluation.figures import flatten, lookup
from infermax_gym.evaluation.fleets import FleetContender, FleetPart, PrefillPool
from infermax_gym.evaluation.groups import group_figures, jain_index
from infermax_gym.evaluation.report import render_comparison, render_run
from infermax_gym.evaluation.scenario import Evaluation, Run, Scenario, WorkloadSpec, evaluate, iterate_runs
from infermax_gym.evaluation.statistics import Ratio, mean_and_ci95, paired_bootstrap, paired_ratio, student_t975
from infermax_gym.evaluation.table import comparison_table
from infermax_gym.evaluation.warming import warm_up

__all__ = [
    "Capacity",
    "Concurrency",
    "Contender",
    "Demand",
    "Evaluation",
    "FleetContender",
    "FleetPart",
    "Player",
    "PrefillPool",
    "Ratio",
    "Run",
    "Scenario",
    "Served",
    "Sizing",
    "WorkloadSpec",
    "comparison_document",
    "comparison_table",
    "details_document",
    "details_of",
    "evaluate",
    "find_capacity",
    "find_concurrency",
    "find_smallest",
    "flatten",
    "group_figures",
    "information_of",
    "iterate_runs",
    "jain_index",
    "lookup",
    "mean_and_ci95",
    "no_predictions",
    "paired_bootstrap",
    "paired_ratio",
    "render_capacity",
    "render_comparison",
    "render_run",
    "resolved_options",
    "run_contender",
    "serve",
    "student_t975",
    "warm_up",
    "with_slo",
]
