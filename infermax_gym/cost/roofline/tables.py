"""The tables of facts beside this file."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from types import MappingProxyType


@cache
def table(name: str) -> tuple[MappingProxyType[str, str], ...]:
    """The lines of a CSV file of this package, by the names of its columns."""
    text = files("infermax_gym.cost.roofline").joinpath(name).read_text(encoding="utf-8")
    return tuple(MappingProxyType(line) for line in csv.DictReader(text.splitlines()))
