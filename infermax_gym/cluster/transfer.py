"""What it takes to move KV between replicas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class KvTransfer:
    """What moving a request's KV from one replica to another takes.

    Attributes:
        bytes_per_token: KV of one token. Default: llama2-7b in 16 bit, 2 x 32 layers x 4,096 x 2 bytes.
        bytes_per_s: bandwidth that one transfer has. Default: 25 GB/s, a 200 Gbit/s link. Transfers do not share it:
            links are taken to be as many as are needed.
        latency_s: of a transfer, however small.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> float(KvTransfer(bytes_per_token=500_000.0, bytes_per_s=25e9).seconds(1_000))
        0.02
    """

    bytes_per_token: float = 524_288.0
    bytes_per_s: float = 25e9
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.bytes_per_token < math.inf or not 0.0 <= self.latency_s < math.inf:
            raise ValueError("KvTransfer: bytes_per_token and latency_s must be finite and not negative")
        if not self.bytes_per_s > 0.0:
            raise ValueError(f"KvTransfer: bytes_per_s must be positive, got {self.bytes_per_s}")

    def seconds(self, num_tokens: ArrayLike) -> NDArray[np.float64]:
        """Seconds to move the KV of so many tokens, or of each of so many."""
        return self.latency_s + np.asarray(num_tokens, np.float64) * self.bytes_per_token / self.bytes_per_s
