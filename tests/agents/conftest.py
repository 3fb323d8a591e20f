"""Networks this small run on one thread: more only wait for each other, above all on a busy machine."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
