"""The frozen benchmark: named tasks, how agents are scored on them, and how a score is certified.

`tasks` says what the tasks are (data alone, light to import), `registration` makes Gymnasium ids of them, `env` is the
environment of tasks that mix engines or traffic. `episodes` draws the test episodes, `play` has an agent serve them,
`decisions` packs what it decided, `replay` carries that out again. `scoring` holds scores and statistics, `cards` the
reference scores that are shipped, `result` the file that `infermax evaluate` writes and `infermax verify` certifies,
`board` the leaderboard. `data` makes offline data sets; `expressions`, `search_task` and `sandbox` score schedulers
that a program searches. docs/suite.md is for users.

A version never changes: tests hold a digest of every workload, engine and setting of `v1`.
"""

from __future__ import annotations
