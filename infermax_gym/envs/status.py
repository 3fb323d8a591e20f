"""Where the lane of an environment stands: what compiled steps return."""

from __future__ import annotations

RUNNING_ON = 0  # the agent is to decide
TERMINATED = 1  # every request is finished or rejected
TRUNCATED = 2  # a limit is reached
LOG_FULL = 3  # the log is full: empty it and resume
HANDOVER = 4  # a limit is reached: the fallback policy must serve the rest before the episode is over
