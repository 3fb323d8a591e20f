"""Engines and traffic, split by GPU, by model and by trace: what is trained on, chosen on and tested on.

No GPU, model or held-out trace of one split occurs in another. `FRESH` has engines of the test split that nobody had
looked at when the selectors were made, and GPUs and models of which only data sheets are known. Loads count against the
engine's own capacity: the rate at which it finishes requests while `vllm` works off a backlog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from experiments.transfer.traces import FILES, drawn_trace
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost.engines.names import EngineNameError
from infermax_gym.cost.engines.table import engines, find_engine
from infermax_gym.cost.roofline import estimate, parse_name
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.streams import stream
from infermax_gym.workload import Gamma, Joint, LogNormal, Workload, WorkloadPreset, closed_loop, make_workload

CLOSED = 0.0
"""The load that stands for a closed loop."""


@dataclass(frozen=True)
class Split:
    """What belongs together.

    Attributes:
        gpus: whose engines, and ...
        models: ... of which models.
        traffic: names of presets or of traces, or `random-K`: traffic drawn at random, number K.
        loads: of an open loop, against capacity; `CLOSED` for a closed loop of 1.5 times as many clients as run at
            capacity.
        first_seed: of its workloads and of its random traffic.
        estimated: further engines, MODEL@DEVICE[xN], whose cost is estimated from data sheets.
    """

    gpus: tuple[str, ...]
    models: tuple[str, ...]
    traffic: tuple[str, ...]
    loads: tuple[float, ...]
    first_seed: int
    estimated: tuple[str, ...] = ()

    @property
    def engines(self) -> tuple[str, ...]:
        """Every engine that belongs here: those of the table, and those that are estimated."""
        table = engines()
        own = (name for name, one in table.items() if one.gpu in self.gpus and one.model in self.models)
        return (*own, *self.estimated)


_USUAL = ("azure-conv", "azure-code", "mooncake-conversation", "reasoning")

TRAIN = Split(
    ("a100", "h100", "b200"),
    ("qwen3-8b", "llama-3.1-70b", "qwen3-30b-a3b", "mixtral-8x7b", "qwen3-235b-a22b", "gpt-oss-20b"),
    (*_USUAL, "mixed"),
    (0.7, 0.9, 1.1, 1.4, CLOSED),
    1_000_000,
)
VALIDATE = Split(("rtx-pro-6000",), ("llama-3.1-8b",), (*_USUAL, "mixed", "tenants"), TRAIN.loads, 2_000_000)
TEST = Split(
    ("h200", "l40s"),
    ("qwen3-32b", "gpt-oss-120b", "llama-3.1-405b"),
    (*_USUAL, "long-document", "conversations"),
    (0.8, 1.0, 1.2, CLOSED),
    3_000_000,
)
FRESH = Split(
    TEST.gpus,
    TEST.models,
    ("azure-conv", "azure-code", "mooncake-conversation", "reasoning", "long-document", "conversations", "tenants"),
    (0.8, 1.0, 1.2, CLOSED, 0.9, 1.1),
    4_000_000,
    ("mistral-7b@l4", "qwen2.5-72b@mi300xx2", "llama-3.3-70b@gb200", "glm-4.5-air@mi355x", "phi-4@gaudi3"),
)
REASONING = replace(FRESH, traffic=("reasoning",), loads=(1.2,), first_seed=6_000_000)
TRACES = replace(FRESH, traffic=tuple(FILES), first_seed=5_000_000)


@dataclass(frozen=True)
class Scenario:
    """An engine under some traffic.

    Attributes:
        engine: its name in the table of engines, or one that is estimated.
        traffic: as in `Split`.
        load: as in `Split`.
        seed: of the workload.
    """

    engine: str
    traffic: str
    load: float
    seed: int

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"{self.engine} {self.traffic} {'closed' if self.load == CLOSED else self.load}"

    @property
    def config(self) -> EngineConfig:
        """The replica."""
        return engine_config(self.engine)

    def workload(self, number: int = 0) -> Workload:
        """Requests of the scenario; another number draws others."""
        capacity = capacity_of(self.engine, self.traffic)
        size = int(np.clip(4 * capacity.num_running, 800, 2000))
        seed = self.seed + 100_000 * number
        if self.load == CLOSED:
            drawn = _draw(self.traffic, size, seed, None)
            size = len(drawn)
            clients = max(2, round(1.5 * capacity.num_running))
            return closed_loop(replace(drawn, after=np.full(size, -1)), min(clients, size // 2))
        return _draw(self.traffic, size, seed, self.load * capacity.rate)


def scenarios(split: Split, names: Sequence[str]) -> list[Scenario]:
    """These engines of a split under all of its traffic, at its loads in turn.

    Raises:
        ValueError: an engine belongs to another split.
    """
    for name in names:
        if name not in split.engines:
            raise ValueError(f"engine {name!r} is of another split; this one has {', '.join(split.engines)}")
    found: list[Scenario] = []
    for i, engine in enumerate(names):
        for j, traffic in enumerate(split.traffic):
            load = split.loads[(i + j) % len(split.loads)]
            found.append(Scenario(engine, traffic, load, split.first_seed + len(found)))
    return found


def random_scenarios(split: Split, count: int, seed: int = 0) -> list[Scenario]:
    """Engines, traffic and loads of a split drawn at random; half of the traffic is drawn itself, too."""
    rng = stream(split.first_seed + seed, "workload")
    found = []
    for k in range(count):
        engine = split.engines[int(rng.integers(len(split.engines)))]
        number = split.first_seed + 10_000 * (seed + 1) + k
        drawn = rng.random() < 0.5
        traffic = f"random-{number}" if drawn else split.traffic[int(rng.integers(len(split.traffic)))]
        load = CLOSED if rng.random() < 0.15 else float(np.round(rng.uniform(0.6, 1.5), 3))
        found.append(Scenario(engine, traffic, load, number))
    return found


@dataclass(frozen=True)
class Capacity:
    """What an engine manages.

    Attributes:
        rate: requests finished per second, with a backlog.
        num_running: how many run at once meanwhile.
    """

    rate: float
    num_running: float


@cache
def engine_config(name: str) -> EngineConfig:
    """The replica of a name: of the table of engines, or else estimated from data sheets."""
    try:
        engine = find_engine(name)
    except EngineNameError:
        asked = parse_name(name)
        found = estimate(asked.shape, asked.device, asked.num_devices, weights=asked.weights)
        sizes = found.sizes
        return EngineConfig(
            found.cost, found.memory.num_kv_tokens, 16, sizes.max_num_batched_tokens, sizes.max_num_seqs
        )
    return EngineConfig(
        engine.cost, engine.num_kv_tokens, engine.block_size, engine.max_num_batched_tokens, engine.max_num_seqs
    )


@cache
def capacity_of(engine: str, traffic: str) -> Capacity:
    """The capacity of an engine under some traffic: the middle half of a backlog that `vllm` works off."""
    config = engine_config(engine)
    drawn = _draw(traffic, 4 * config.max_num_seqs, 17, None)
    count = len(drawn)
    batch = replace(drawn, arrival_s=np.zeros(count), after=np.full(count, -1))
    result = simulate(batch, config, POLICIES["vllm"])
    finish_s = np.sort(result.finish_s[result.finished])
    from_s, to_s = finish_s[len(finish_s) // 4], finish_s[3 * len(finish_s) // 4]
    begin_s, end_s = result.first_token_s[result.finished], result.finish_s[result.finished]
    overlap_s = np.clip(np.minimum(end_s, to_s) - np.maximum(begin_s, from_s), 0.0, None)
    return Capacity(0.5 * len(finish_s) / (to_s - from_s), float(overlap_s.sum() / (to_s - from_s)))


def _draw(traffic: str, count: int, seed: int, rate: float | None) -> Workload:
    if traffic in FILES:
        return drawn_trace(traffic, count, seed, rate)
    kind = random_traffic(int(traffic.removeprefix("random-"))) if traffic.startswith("random-") else traffic
    return make_workload(kind, count, seed=seed, rate=rate)


def random_traffic(number: int) -> WorkloadPreset:
    """Log-normal lengths and gamma arrivals, their parameters drawn at random."""
    rng = stream(number, "workload")
    prompt = LogNormal(float(np.exp(rng.uniform(np.log(100), np.log(12_000)))), rng.uniform(0.3, 1.5), high=60_000)
    output = LogNormal(float(np.exp(rng.uniform(np.log(20), np.log(1500)))), rng.uniform(0.3, 1.3), high=16_000)
    arrivals = Gamma(1.0, float(np.exp(rng.uniform(np.log(0.7), np.log(3.0)))))
    return WorkloadPreset(f"random-{number}", "drawn at random", lambda: arrivals, lambda: Joint(prompt, output))
