"""What the tasks of the suite are: environment, engines, traffic, seeds. Data alone; importing it is light."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

VERSION = "v1"
FIRST_TEST_SEED = 2**32
"""Seeds below are for training, seeds from here on are derived, see `test_seed`."""


class SuiteError(ValueError):
    """A task, an agent or a result cannot be used; one line."""


@dataclass(frozen=True)
class Variant:
    """One engine and one traffic of a task.

    Attributes:
        engine: a name of the table of engines, or of a cost preset.
        traffic: a preset of workloads.
        num_kv_tokens: KV capacity in tokens.
        load: `time_scale` of the arrivals, or of a fleet `rate_per_replica` in requests per second.
    """

    engine: str
    traffic: str
    num_kv_tokens: int
    load: float

    @property
    def name(self) -> str:
        """Traffic and engine in words."""
        return f"{self.traffic} on {self.engine}"


@dataclass(frozen=True, eq=False)
class Task:
    """One rung of the ladder.

    Attributes:
        id: of the environment.
        title: one line for people.
        environment: the id it is built on.
        settings: of that environment, besides those of the variants.
        train: variants to train on.
        test: variants of the test episodes.
        num_test_seeds: test episodes of each variant.
        objective: "latency" (mean E2E latency, seconds) or "misses" (share of requests that miss a limit); less is
            better.
        yardstick: what score 1 is: "optimum" (proven) or "bound" (certified; perhaps nobody can reach it).
    """

    id: str
    title: str
    environment: Literal["InferMax-v0", "InferMaxRouter-v0"]
    settings: Mapping[str, Any]
    train: tuple[Variant, ...]
    test: tuple[Variant, ...]
    num_test_seeds: int
    objective: Literal["latency", "misses"] = "latency"
    yardstick: Literal["optimum", "bound"] = "bound"
    information: Literal["none"] = field(default="none")

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    @property
    def is_fleet(self) -> bool:
        """Whether the task is to route requests to replicas."""
        return self.environment == "InferMaxRouter-v0"

    @property
    def horizon(self) -> int:
        """Requests of an episode."""
        return int(self.settings["num_requests"]) + int(self.settings.get("backlog", 0))

    def options(self, variant: Variant) -> dict[str, Any]:
        """The settings that a variant adds, as `reset` takes them."""
        load = "rate_per_replica" if self.is_fleet else "time_scale"
        return {
            "workloads": variant.traffic,
            "costs": variant.engine,
            "num_kv_tokens": variant.num_kv_tokens,
            load: variant.load,
        }

    def episodes(self) -> tuple[tuple[Variant, int], ...]:
        """The test episodes: variants with seeds, variant by variant."""
        return tuple(
            (variant, test_seed(self.id, i * self.num_test_seeds + k))
            for i, variant in enumerate(self.test)
            for k in range(self.num_test_seeds)
        )

    def seeds(self) -> list[int]:
        """The seeds of the test episodes."""
        return [seed for _, seed in self.episodes()]


def test_seed(task: str, index: int) -> int:
    """The seed of a test episode: from the SHA-256 of a sentence that anybody can hash."""
    text = f"infermax_gym suite {VERSION}: test episode {index} of {task}"
    return FIRST_TEST_SEED + int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


_DECISIONS = {
    "block_size": 16,
    "max_num_seqs": 256,
    "num_waiting_slots": 8,
    "num_running_slots": 4,
    "level_shares": (0.25, 1.0),
    "decide": "change",
    "preempt": "forced",
    "max_decisions_per_request": 60,
}
"""Settings that let agents learn, see docs/environments.md."""

_TOY = Variant("llama3-70b-a100x4", "uniform:8,16,0.25", 26, 1.0)
_LONG = Variant("llama-3.1-8b@h200", "mooncake-conversation", 400_000, 0.05)
_SMALL = "qwen3-32b@h100"
_SMALL_KV = 31_536


def _small(traffic: str, load: float) -> Variant:
    return Variant(_SMALL, traffic, _SMALL_KV, load)


TOY = Task(
    "InferMaxSuite-Toy-v1",
    "four short requests at once, memory for little more than one: the optimum is proven",
    "InferMax-v0",
    {
        "num_requests": 4,
        "block_size": 1,
        "max_num_batched_tokens": 512,
        "max_num_seqs": 256,
        "num_waiting_slots": 4,
        "num_running_slots": 4,
        "level_shares": 1.0,
        "decide": "iteration",
        "max_decisions_per_request": 60,
    },
    (_TOY,),
    (_TOY,),
    12,
    yardstick="optimum",
)
LONG_CONTEXT = Task(
    "InferMaxSuite-LongContext-v1",
    "one engine, one traffic: fifty very long prompts, nearly at once",
    "InferMax-v0",
    {
        "num_requests": 40,
        "backlog": 10,
        "max_num_batched_tokens": 8_192,
        "max_num_seqs": 256,
        "num_waiting_slots": 4,
        "num_running_slots": 2,
        "level_shares": 1.0,
        "decide": "change",
        "preempt": "forced",
        "max_decisions_per_request": 60,
    },
    (_LONG,),
    (_LONG,),
    16,
)
ALL_TRAFFIC = Task(
    "InferMaxSuite-AllTraffic-v1",
    "one engine with little memory, five kinds of traffic, two of them never seen in training",
    "InferMax-v0",
    {**_DECISIONS, "num_requests": 100, "max_num_batched_tokens": 8_192},
    (_small("azure-conv", 1.2), _small("azure-code", 0.3), _small("reasoning", 0.6)),
    (
        _small("azure-conv", 1.2),
        _small("azure-code", 0.3),
        _small("reasoning", 0.6),
        _small("mixed", 0.7),
        _small("long-document", 0.6),
    ),
    3,
)
ANY_ENGINE = Task(
    "InferMaxSuite-AnyEngine-v1",
    "three engines of GPUs, models or both that training never saw",
    "InferMax-v0",
    {**_DECISIONS, "num_requests": 120, "max_num_batched_tokens": 2_048},
    (
        Variant("qwen3-32b@a100", "azure-conv", 29_216, 2.0),
        Variant("qwen3-32b@a100", "azure-code", 29_216, 0.6),
        Variant("qwen3-32b@l40sx2", "azure-conv", 56_032, 2.0),
        Variant("qwen3-32b@l40sx2", "azure-code", 56_032, 0.6),
        Variant("qwen3-8b@l40s", "azure-conv", 163_552, 0.8),
        Variant("qwen3-8b@l40s", "azure-code", 163_552, 0.3),
    ),
    (
        Variant("qwen3-32b@rtx-pro-6000", "azure-conv", 90_304, 1.0),
        Variant("qwen3-32b@rtx-pro-6000", "azure-code", 90_304, 0.3),
        Variant("llama-3.1-70b@b200", "azure-conv", 96_032, 1.0),
        Variant("llama-3.1-70b@b200", "azure-code", 96_032, 0.3),
        Variant("qwen3-30b-a3b@h100", "azure-conv", 135_808, 0.15),
        Variant("qwen3-30b-a3b@h100", "azure-code", 135_808, 0.15),
    ),
    3,
)
_FLEET = Variant(_SMALL, "azure-conv", _SMALL_KV, 3.2)
ROUTER = Task(
    "InferMaxSuite-Router-v1",
    "four engines alike: which of them gets the arriving request",
    "InferMaxRouter-v0",
    {
        "num_requests": 300,
        "num_replicas": 4,
        "policy": "vllm",
        "block_size": 16,
        "max_num_batched_tokens": 8_192,
        "max_num_seqs": 256,
        "max_decisions_per_request": 60,
    },
    (_FLEET,),
    (_FLEET,),
    16,
)
_IN_TIME = _small("azure-conv", 1.8)
GOODPUT = Task(
    "InferMaxSuite-Goodput-v1",
    "as many requests as possible within their limits on TTFT and TPOT",
    "InferMax-v0",
    {
        **_DECISIONS,
        "num_requests": 150,
        "max_num_batched_tokens": 8_192,
        "reward": "goodput",
        "ttft_slo_s": 2.0,
        "tpot_slo_s": 0.06,
    },
    (_IN_TIME,),
    (_IN_TIME,),
    12,
    objective="misses",
)

SUITES: Mapping[str, tuple[Task, ...]] = MappingProxyType(
    {VERSION: (TOY, LONG_CONTEXT, ALL_TRAFFIC, ANY_ENGINE, ROUTER, GOODPUT)}
)
"""Tasks by version, easiest first."""


def tasks_of(suite: str) -> tuple[Task, ...]:
    """The tasks of a version.

    Raises:
        SuiteError: there is no such version.
    """
    if suite not in SUITES:
        raise SuiteError(f"there is no suite {suite!r}; expected one of {', '.join(SUITES)}")
    return SUITES[suite]


def task_of(name: str, suite: str = VERSION) -> Task:
    """A task by its id, or by its short name such as `toy` or `long-context`.

    Raises:
        SuiteError: there is no such task.
    """
    tasks = tasks_of(suite)
    for task in tasks:
        if name in (task.id, short_name(task)):
            return task
    raise SuiteError(f"suite {suite} has no task {name!r}; expected one of {', '.join(map(short_name, tasks))}")


def short_name(task: Task) -> str:
    """Its name in kebab-case, such as `long-context`."""
    middle = task.id.split("-")[1]
    return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(middle))
