"""What real endpoints publish, as the signals that routers of the table look at.

The inputs are those of scorers of the Kubernetes Gateway API inference extension and of llm-d: queue, KV utilisation
and running requests from a server's metrics, and a prefix match from an index. Servers do not publish how many tokens
wait or how fast memory comes back; where nobody else knows, both are estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.door import Asked, Door
from infermax_gym.cluster.router import CONSTANTS, SIGNALS, PythonRouter, Router


@dataclass(frozen=True)
class Endpoint:
    """What is known of a server from the start.

    Attributes:
        num_kv_blocks: `num_gpu_blocks` of vllm:cache_config_info.
        block_size: `block_size` there, tokens.
        prefill_tokens_per_s: prompt tokens per second of an iteration that is one prefill.
    """

    num_kv_blocks: int
    block_size: int = 16
    prefill_tokens_per_s: float = 10_000.0

    def __post_init__(self) -> None:
        if self.num_kv_blocks < 1 or self.block_size < 1 or not self.prefill_tokens_per_s > 0.0:
            raise ValueError(f"an endpoint needs blocks, tokens in them and a prefill rate above 0, got {self}")

    @property
    def kv_tokens(self) -> int:
        """KV capacity in tokens."""
        return self.num_kv_blocks * self.block_size


@dataclass(frozen=True)
class Metrics:
    """What a server says when it is scraped.

    Attributes:
        waiting_queue_size: vllm:num_requests_waiting.
        running_requests_size: vllm:num_requests_running.
        kv_cache_usage: vllm:kv_cache_usage_perc, 0 to 1.
        prefix_match: share of the request's prompt that the index takes to be cached there, 0 to 1.
        waiting_tokens: prompt tokens of its waiting requests, where the gateway counts them; None: estimated from
            `waiting_queue_size` and the mean prompt of the requests seen so far.
        released_tokens_per_s: prompt and output tokens of finished requests per second; 0: not known.
        healthy: whether it may get the request.
    """

    waiting_queue_size: float
    running_requests_size: float
    kv_cache_usage: float
    prefix_match: float = 0.0
    waiting_tokens: float | None = None
    released_tokens_per_s: float = 0.0
    healthy: bool = True


class Gateway:
    """A router of the table behind a gateway's metrics.

    Args:
        router: of `infermax_gym.baselines.routers.ROUTERS`, or one written in Python.
        endpoints: the servers.
        seed: of random choices.

    Example:
        >>> from infermax_gym.baselines.routers import ROUTERS
        >>> gateway = Gateway(ROUTERS["sal"], [Endpoint(num_kv_blocks=4000)] * 2)
        >>> gateway.pick([Metrics(4, 20, 0.7), Metrics(0, 24, 0.8)], num_prompt_tokens=900)
        1
    """

    def __init__(self, router: Router | PythonRouter, endpoints: Sequence[Endpoint], seed: int = 0) -> None:
        constants = np.zeros((len(CONSTANTS), len(endpoints)))
        for i, endpoint in enumerate(endpoints):
            constants[:, i] = endpoint.kv_tokens, endpoint.prefill_tokens_per_s
        self.door = Door(router, constants, seed)
        self._prompts_seen = 0
        self._prompt_tokens_seen = 0

    def pick(
        self,
        metrics: Sequence[Metrics],
        num_prompt_tokens: int,
        *,
        arrival_s: float = 0.0,
        session: str | None = None,
        tenant: str | None = None,
    ) -> int:
        """The number of the endpoint that gets a request; -1 if none may.

        Args:
            metrics: of each endpoint, as fresh as they are.
            num_prompt_tokens: of the request, at least 1.
            arrival_s: now.
            session: of the request.
            tenant: of the request.

        Raises:
            ValueError: there are not as many metrics as endpoints, or there is no prompt.
        """
        if len(metrics) != self.door.num_endpoints:
            raise ValueError(f"{self.door.num_endpoints} endpoints need as many metrics, got {len(metrics)}")
        if num_prompt_tokens < 1:
            raise ValueError(f"num_prompt_tokens must be at least 1, got {num_prompt_tokens}")
        self._prompts_seen += 1
        self._prompt_tokens_seen += num_prompt_tokens
        matched = [min(int(one.prefix_match * num_prompt_tokens), num_prompt_tokens - 1) for one in metrics]
        healthy = [one.healthy for one in metrics]
        asked = Asked(num_prompt_tokens, arrival_s, matched, healthy, session, tenant)
        return self.door.choose(self.signals(metrics), asked)

    def signals(self, metrics: Sequence[Metrics]) -> NDArray[np.float64]:
        """(len(SIGNALS), endpoints) float64; tokens that wait are those still to be prefilled."""
        mean_prompt = self._prompt_tokens_seen / max(self._prompts_seen, 1)
        signals = np.zeros((len(SIGNALS), len(metrics)))
        for i, one in enumerate(metrics):
            waiting = one.waiting_queue_size * mean_prompt if one.waiting_tokens is None else one.waiting_tokens
            free = (1.0 - min(max(one.kv_cache_usage, 0.0), 1.0)) * self.door.constants[0, i]
            signals[:, i] = (
                one.waiting_queue_size,
                one.running_requests_size,
                waiting,
                waiting,
                free,
                one.released_tokens_per_s,
            )
        return signals
