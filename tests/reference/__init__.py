"""The engine once more, in plain Python, for reading: docs/engine.md paragraph by paragraph.

Written from the specification alone, so that it and the compiled kernel can be held against each other.

- `engine`: the clock, the effective values, `advance`; `simulate_reference` is the entry.
- `decision`: one decision: resume, displace, order, serve, afterwards.
- `admission`: waiting requests; `fit`: what must be free for one; `preemption`: who has to go, and where to.
- `keys`, `waiting`: features, keys and the waiting queue.
- `closed_loop`: requests that are sent when others have ended.
- `cache`: the prefix cache, block by block.
- `request`, `state`: what all of these read and write.
"""

from tests.reference.engine import simulate_reference
from tests.reference.result import Iteration, ReferenceResult

__all__ = ["Iteration", "ReferenceResult", "simulate_reference"]
