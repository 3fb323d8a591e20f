"""Comparing workloads field by field."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from infermax_gym.workload import Workload


def assert_same_requests(ours: Workload, theirs: Workload, *, without: tuple[str, ...] = ("name", "metadata")) -> None:
    """Every field equal to the bit, but those named."""
    for item in fields(Workload):
        if item.name in without:
            continue
        left, right = getattr(ours, item.name), getattr(theirs, item.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, item.name
            assert left.tobytes() == right.tobytes(), item.name
        else:
            assert left == right, item.name
