"""Comparing policies fairly: the same requests, the same engine, several seeds, honest intervals.

Start with `scenarios.py` (what is run), then `report.py` (what is shown); `capacity.py` asks how much a fleet carries.
"""

from infermax_gym.evaluation.capacity import Capacity, Demand, Sizing, find_capacity, find_smallest
from infermax_gym.evaluation.capacity_report import render_capacity
from infermax_gym.evaluation.figures import flatten, lookup
from infermax_gym.evaluation.fleets import FleetContender, FleetPart, PrefillPool
from infermax_gym.evaluation.groups import group_figures, jain_index
from infermax_gym.evaluation.report import render_comparison, render_run
from infermax_gym.evaluation.scenario import (
    Contender,
    Evaluation,
    Player,
    Run,
    Scenario,
    WorkloadSpec,
    evaluate,
    information_of,
    iterate_runs,
    serve,
    warm_up,
)
from infermax_gym.evaluation.statistics import Ratio, mean_and_ci95, paired_bootstrap, paired_ratio, student_t975
from infermax_gym.evaluation.table import comparison_table

__all__ = [
    "Capacity",
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
    "Sizing",
    "WorkloadSpec",
    "comparison_table",
    "evaluate",
    "find_capacity",
    "find_smallest",
    "flatten",
    "group_figures",
    "information_of",
    "iterate_runs",
    "jain_index",
    "lookup",
    "mean_and_ci95",
    "paired_bootstrap",
    "paired_ratio",
    "render_capacity",
    "render_comparison",
    "render_run",
    "serve",
    "student_t975",
    "warm_up",
]
