"""Many independent scenarios on many cores: run each once, keep every result, go on after whatever happened.

- `tasks`: a scenario as a task, and the key that its contents give it.
- `store`: the folder of results: one Parquet file per scenario, whole or not there at all.
- `processes`, `on_ray`: who runs the tasks.
- `drive`: runs what the folder lacks.
"""

from infermax_gym.sweep.drive import Report, run_missing
from infermax_gym.sweep.processes import run_in_processes
from infermax_gym.sweep.store import Store, StoreError
from infermax_gym.sweep.tasks import Outcome, Shared, Task, code_digest, key_of

__all__ = [
    "Outcome",
    "Report",
    "Shared",
    "Store",
    "StoreError",
    "Task",
    "code_digest",
    "key_of",
    "run_in_processes",
    "run_missing",
]
