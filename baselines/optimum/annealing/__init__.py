"""Annealing over priority lists and thresholds.

Read `layout` (the records), then `decoder` (from a list and thresholds to a schedule), then `anneal` (`Annealer`, which
moves from one to the next). `Annealer.advance` calls `anneal`, which calls `decode` once for every schedule it tries.
"""
