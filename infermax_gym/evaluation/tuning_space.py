"""What each serving engine lets one set, as far as the simulator models it.

One table: a flag as the engine spells it, the values that are worth trying, and what each value means here, in words
that `infermax bench` takes too: sizes of the engine, a policy's name, and knobs of that policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload

Value = int | float | str
Needs = Literal["priorities", "prefixes"]
"""What a workload must have for a flag to change anything: requests of several priorities, or shared prefixes."""


@dataclass(frozen=True)
class Choice:
    """One value of a flag.

    Attributes:
        value: as one gives it to the engine.
        sizes: fields of `EngineConfig` that it sets.
        policy: name of the policy that it selects; None leaves the engine's.
        knobs: knobs of that policy, as `bench --policies NAME+knob=value` takes them.
        engine: name of the engine that it selects (`infermax list costs`); None leaves it.
        replicas: engines behind a router; None leaves their number.
        router: who distributes requests over them; None leaves it.
    """

    value: Value
    sizes: tuple[tuple[str, int | bool], ...] = ()
    policy: str | None = None
    knobs: tuple[str, ...] = ()
    engine: str | None = None
    replicas: int | None = None
    router: str | None = None


@dataclass(frozen=True)
class Flag:
    """Something that one sets when one starts an engine.

    Attributes:
        name: as the engine spells it; a dotted name is an entry of its configuration file.
        choices: what is tried.
        default: what it is today; None where the engine's own size says it.
        source: where the engine describes it.
        switch: whether its mere presence is its value.
        needs: what the workload must have.
    """

    name: str
    choices: tuple[Choice, ...]
    default: Value | None
    source: str
    switch: bool = False
    needs: Needs | None = None


@dataclass(frozen=True)
class Space:
    """An engine, as one starts it.

    Attributes:
        backend: vllm, sglang or trtllm.
        policy: what it schedules by today.
        flags: what can be set.
        sizes: fields of `EngineConfig` that are so by default.
        router: who distributes requests over its replicas, if nobody else does.
        budget_holds_seqs: whether it refuses a token budget below its number of sequences.
        replicas: how many there are today.
    """

    backend: str
    policy: str
    flags: tuple[Flag, ...]
    sizes: tuple[tuple[str, int | bool], ...] = (("prefix_caching", True),)
    router: str = "round-robin"
    budget_holds_seqs: bool = False
    replicas: int = 1

    def flag(self, name: str) -> Flag:
        """The flag of a name."""
        return next(flag for flag in self.flags if flag.name == name)

    def without(self, workloads: Iterable[Workload]) -> Space:
        """The space without flags that change nothing about these workloads."""
        many = list(workloads)
        has = {
            "priorities": any(bool(np.ptp(each.priority)) for each in many if len(each)),
            "prefixes": any(has_prefixes(each) for each in many),
        }
        return replace(self, flags=tuple(flag for flag in self.flags if flag.needs is None or has[flag.needs]))


@dataclass(frozen=True)
class Setting:
    """Flags that differ from today's defaults, by name; empty: today's defaults."""

    choices: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def key(self) -> tuple[tuple[str, Value], ...]:
        """What two equal settings have in common."""
        return tuple(sorted((name, choice.value) for name, choice in self.choices.items()))

    def with_(self, name: str, choice: Choice) -> Setting:
        """The setting with one flag more, or another value of it."""
        return Setting({**self.choices, name: choice})

    def without(self, name: str) -> Setting:
        """The setting with one flag back at today's default."""
        return Setting({other: choice for other, choice in self.choices.items() if other != name})

    def merged(self, other: Setting) -> Setting:
        """Both settings' flags; where they differ, those of `other`."""
        return Setting({**self.choices, **other.choices})

    def names_one_policy(self) -> bool:
        """Whether its flags agree on the policy that they select."""
        return len({choice.policy for choice in self.choices.values() if choice.policy is not None}) < 2

    def policy(self, default: str) -> str:
        """The policy that it selects, with its knobs, as `bench --policies` takes it."""
        named = [choice.policy for choice in self.choices.values() if choice.policy is not None]
        knobs = [knob for _, choice in sorted(self.choices.items()) for knob in choice.knobs]
        return "+".join([named[0] if named else default, *knobs])

    def replicas(self, space: Space) -> int:
        """How many engines share the requests."""
        return next((c.replicas for c in self.choices.values() if c.replicas is not None), space.replicas)

    def router(self, space: Space) -> str:
        """Who distributes the requests over them."""
        return next((c.router for c in self.choices.values() if c.router is not None), space.router)

    @property
    def engine(self) -> str | None:
        """The engine that it selects; None: today's."""
        return next((c.engine for c in self.choices.values() if c.engine is not None), None)

    def sized(self, config: EngineConfig) -> EngineConfig:
        """An engine with its sizes."""
        sizes = {name: value for choice in self.choices.values() for name, value in choice.sizes}
        return replace(config, **sizes) if sizes else config  # type: ignore[arg-type]


def has_prefixes(workload: Workload) -> bool:
    """Whether some requests of a workload may share KV."""
    return bool(workload.prefix_blocks.size)


def changes(space: Space, config: EngineConfig) -> list[tuple[str, Choice]]:
    """Every value of every flag that differs from what an engine has today."""
    return [
        (flag.name, choice)
        for flag in space.flags
        for choice in flag.choices
        if choice.value != flag.default
        if not choice.sizes or any(getattr(config, name) != value for name, value in choice.sizes)
    ]


def is_valid(setting: Setting, space: Space, config: EngineConfig) -> bool:
    """Whether an engine starts with a setting, and the simulator can play it."""
    sized = setting.sized(config)
    holds = not space.budget_holds_seqs or sized.max_num_batched_tokens >= sized.max_num_seqs
    routed = any(choice.router is not None for choice in setting.choices.values())
    return setting.names_one_policy() and holds and not (routed and setting.replicas(space) == 1)


def first_settings(space: Space, config: EngineConfig, rng: np.random.Generator, num_random: int) -> list[Setting]:
    """Today's defaults, every change of a single flag, and random changes of several.

    Args:
        space: what can be set.
        config: the engine as it is today.
        rng: of the random ones.
        num_random: how many of those are drawn; invalid and equal ones are dropped.
    """
    single = changes(space, config)
    settings = [Setting(), *(Setting({name: choice}) for name, choice in single)]
    by_flag: dict[str, list[Choice]] = {}
    for name, choice in single:
        by_flag.setdefault(name, []).append(choice)
    for _ in range(num_random if len(by_flag) > 1 else 0):
        count = int(rng.integers(2, min(4, len(by_flag)), endpoint=True))
        names = [list(by_flag)[i] for i in sorted(rng.choice(len(by_flag), count, replace=False))]
        settings.append(Setting({name: by_flag[name][int(rng.integers(len(by_flag[name])))] for name in names}))
    return unique(setting for setting in settings if is_valid(setting, space, config))


def children(parents: Iterable[Setting], space: Space, config: EngineConfig, most: int) -> list[Setting]:
    """Settings that join the flags of two good ones, of the best parents first."""
    pairs = combinations(list(parents), 2)
    merged = (setting for one, other in pairs for setting in (other.merged(one), one.merged(other)))
    return unique(setting for setting in merged if is_valid(setting, space, config))[:most]


def unique(settings: Iterable[Setting]) -> list[Setting]:
    """The settings without repetitions, in order."""
    return list({setting.key: setting for setting in reversed(list(settings))}.values())[::-1]


def values_of(space: Space, setting: Setting, config: EngineConfig) -> dict[str, Value]:
    """Every flag's value under a setting; of sizes, what the engine has."""
    values: dict[str, Any] = {}
    for flag in space.flags:
        chosen = setting.choices.get(flag.name)
        default = flag.default if flag.default is not None else getattr(config, flag.choices[0].sizes[0][0])
        values[flag.name] = default if chosen is None else chosen.value
    return values


def _sizes(size: str, *values: int) -> tuple[Choice, ...]:
    return tuple(Choice(value, ((size, value),)) for value in values)


def _knobs(*values: float | int, knobs: tuple[str, ...]) -> tuple[Choice, ...]:
    return tuple(Choice(value, knobs=tuple(knob.format(value) for knob in knobs)) for value in values)


def _conservativeness(*values: float) -> tuple[Choice, ...]:
    """SGLang multiplies its first ratio, 0.7, and takes 0.14 of that as its last one."""
    first = {value: min(0.7 * value, 1.0) for value in values}
    return tuple(Choice(v, knobs=(f"first_ratio={f:.6g}", f"last_ratio={0.14 * f:.6g}")) for v, f in first.items())


_BUDGETS = (1024, 2048, 4096, 8192, 16384, 32768)
_SEQS = (32, 64, 128, 256, 512, 1024)
_NO_CACHE = (Choice("on", (("prefix_caching", False),)),)

_VLLM_SCHEDULER = "vLLM 0.33, vllm.config.SchedulerConfig"
_SGLANG_ARGUMENTS = "SGLang, server arguments (docs: advanced_features/server_arguments)"
_TRTLLM_CONFIG = "TensorRT-LLM, llmapi.SchedulerConfig"

VLLM = Space(
    "vllm",
    "vllm",
    (
        Flag("--max-num-batched-tokens", _sizes("max_num_batched_tokens", *_BUDGETS), None, _VLLM_SCHEDULER),
        Flag("--max-num-seqs", _sizes("max_num_seqs", *_SEQS), None, _VLLM_SCHEDULER),
        Flag(
            "--long-prefill-token-threshold",
            _knobs(256, 512, 1024, 2048, 4096, knobs=("max_chunk={}", "uncapped_when_alone=true")),
            0,
            _VLLM_SCHEDULER,
        ),
        Flag(
            "--watermark",
            _knobs(0.01, 0.02, 0.05, 0.1, knobs=("watermark={}",)),
            0.0,
            f"{_VLLM_SCHEDULER} (PR 44594)",
        ),
        Flag(
            "--prefill-schedule-interval",
            _knobs(2, 4, 8, knobs=("prefill_interval={}",)),
            1,
            f"{_VLLM_SCHEDULER} (PR 44558)",
        ),
        Flag(
            "--no-scheduler-reserve-full-isl",
            (Choice("on", policy="vllm-0.13"),),
            "off",
            f"{_VLLM_SCHEDULER} (PR 37307): prompts join chunk by chunk, as up to 0.18",
            switch=True,
        ),
        Flag(
            "--scheduling-policy",
            (Choice("priority", policy="vllm-priority"),),
            "fcfs",
            _VLLM_SCHEDULER,
            needs="priorities",
        ),
        Flag(
            "--no-enable-prefix-caching",
            _NO_CACHE,
            "off",
            "vLLM 0.33, vllm.config.CacheConfig",
            switch=True,
            needs="prefixes",
        ),
    ),
    sizes=(("prefix_caching", True), ("empty_blocks_first", True)),
    router="vllm-dp",
    budget_holds_seqs=True,
)
SGLANG = Space(
    "sglang",
    "sglang-fcfs",
    (
        Flag("--chunked-prefill-size", _sizes("max_num_batched_tokens", *_BUDGETS[1:5]), None, _SGLANG_ARGUMENTS),
        Flag("--max-running-requests", _sizes("max_num_seqs", *_SEQS), None, _SGLANG_ARGUMENTS),
        Flag("--schedule-conservativeness", _conservativeness(0.3, 0.6, 1.3), 1.0, _SGLANG_ARGUMENTS),
        Flag(
            "--schedule-policy",
            (Choice("lpm", policy="sglang-lpm"),),
            "fcfs",
            _SGLANG_ARGUMENTS,
            needs="prefixes",
        ),
        Flag("--disable-radix-cache", _NO_CACHE, "off", _SGLANG_ARGUMENTS, switch=True, needs="prefixes"),
    ),
)
TRTLLM = Space(
    "trtllm",
    "trt-no-evict",
    (
        Flag("--max_num_tokens", _sizes("max_num_batched_tokens", *_BUDGETS), None, "TensorRT-LLM, trtllm-serve"),
        Flag("--max_batch_size", _sizes("max_num_seqs", *_SEQS), None, "TensorRT-LLM, trtllm-serve"),
        Flag(
            "scheduler_config.capacity_scheduler_policy",
            (
                Choice("MAX_UTILIZATION", policy="trt-max-utilization"),
                Choice("STATIC_BATCH", policy="trt-static-batch"),
            ),
            "GUARANTEED_NO_EVICT",
            _TRTLLM_CONFIG,
        ),
        Flag(
            "kv_cache_config.enable_block_reuse",
            (Choice("false", (("prefix_caching", False),)),),
            "true",
            "TensorRT-LLM, llmapi.KvCacheConfig",
            needs="prefixes",
        ),
    ),
)

SPACES: dict[str, Space] = {space.backend: space for space in (VLLM, SGLANG, TRTLLM)}
"""What can be set, by engine."""
