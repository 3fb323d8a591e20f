"""Weights that make one number of two ranks."""

from __future__ import annotations

from infermax_gym.engine.policy import queue_weights, victim_weights

LEVEL_S = 1e8
"""One level, or one priority, against one second of arrival, so that (level, arrival) is one number."""

BY_PRIORITY = queue_weights(priority=LEVEL_S, arrival_s=1.0)
"""Queue key: the more urgent first (a smaller number), then by arrival."""

LEAST_URGENT = victim_weights(priority=LEVEL_S, arrival_s=1.0)
"""Victim key: the least urgent, of those the last to arrive."""
