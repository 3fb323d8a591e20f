"""Where requests come from: traces, generators and presets, all as a `Workload`.

Start with `load_workload`, which takes the name of a preset or the path of a trace. Behind it:

- `workload`: `Workload`, the requests of a run as immutable arrays, with trace slices and changes of rate.
- `reader`: `read_workload`, a trace file of any known format; `formats` is the table of formats, `columns` and
  `records` what their cells and objects hold, `blocks` the checks that all of them share, `csv_reader`, `jsonl_reader`
  and `document_reader` the three syntaxes, `selection` which rows are kept, `source` the file itself.
- `writer`: `write_workload`, the project's own CSV.
- `arrivals`, `changing_rates`: when requests arrive.
- `lengths`: how many tokens they have.
- `conversations`: several turns behind shared system prompts.
- `closed_loop`: requests that are sent when others have ended: clients, and turns of conversations.
- `presets`: `PRESETS` and `make_workload`; `fitted` holds the parameters of those fitted to public traces.
- `load`: `load_workload`.
"""

from infermax_gym.workload.arrivals import AllAtOnce, Arrivals, Gamma, Poisson
from infermax_gym.workload.changing_rates import Diurnal, Modulated, OnOff, Silences
from infermax_gym.workload.closed_loop import Traffic, as_sessions, closed_loop
from infermax_gym.workload.conversations import Conversations
from infermax_gym.workload.lengths import (
    Constant,
    Joint,
    Lengths,
    LengthSample,
    LogNormal,
    Marginal,
    Mixture,
    Quantiles,
    Uniform,
)
from infermax_gym.workload.load import load_workload
from infermax_gym.workload.presets import PRESETS, RequestClass, WorkloadPreset, make_workload
from infermax_gym.workload.reader import read_workload
from infermax_gym.workload.workload import Workload, WorkloadError
from infermax_gym.workload.writer import write_workload

__all__ = [
    "PRESETS",
    "AllAtOnce",
    "Arrivals",
    "Constant",
    "Conversations",
    "Diurnal",
    "Gamma",
    "Joint",
    "LengthSample",
    "Lengths",
    "LogNormal",
    "Marginal",
    "Mixture",
    "Modulated",
    "OnOff",
    "Poisson",
    "Quantiles",
    "RequestClass",
    "Silences",
    "Traffic",
    "Uniform",
    "Workload",
    "WorkloadError",
    "WorkloadPreset",
    "as_sessions",
    "closed_loop",
    "load_workload",
    "make_workload",
    "read_workload",
    "write_workload",
]
