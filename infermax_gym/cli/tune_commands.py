"""What to type after `infermax tune`: to serve with the flags, and to see their figures again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infermax_gym.cli.inputs import EngineOptions

if TYPE_CHECKING:
    from infermax_gym.evaluation import WorkloadSpec
    from infermax_gym.evaluation.tuning_search import Candidate
    from infermax_gym.evaluation.tuning_space import Setting, Space
    from infermax_gym.evaluation.tuning_windows import Windows
    from infermax_gym.workload import Traffic

_MODEL = "MODEL"


@dataclass(frozen=True)
class Repeat:
    """The options of `infermax tune` that other commands take too.

    Attributes:
        spec: the workload, as typed.
        held_out: its windows.
        is_random: whether they are seeds.
        engine: the engine, as typed.
        slo: the limits, as typed.
        attainment: where cost counts, the share of requests within them; None where something else counts.
    """

    spec: WorkloadSpec
    held_out: Windows
    is_random: bool
    engine: EngineOptions
    slo: str | None
    attainment: float | None

    def command(self, candidate: Candidate, space: Space) -> str:
        """The command that shows a candidate's figures: `bench`, or `capacity` where cost counts."""
        words = ["infermax", "bench" if self.attainment is None else "capacity", *self._workload()]
        words += self._engine(candidate.setting)
        config = candidate.config
        words += ["--prefix-caching"] if config.prefix_caching else []
        words += ["--empty-blocks-first"] if config.empty_blocks_first else []
        words += ["--async-scheduling"] if config.async_scheduling else []
        words += ["--agent" if candidate.is_agent else "--policies", candidate.policy]
        replicas = candidate.setting.replicas(space)
        if replicas > 1:
            words += ["--replicas", str(replicas), "--routers", candidate.setting.router(space)]
        words += [] if self.slo is None else ["--slo", self.slo]
        words += [] if self.attainment is None else ["--attainment", f"{self.attainment:g}"]
        return shlex.join(words)

    def sizing(self, candidate: Candidate, space: Space, rate_per_s: float) -> str:
        """The command that finds the smallest fleet of a candidate's engine for a rate."""
        words = shlex.split(self.command(candidate, space))
        if "--windows" in words:  # a file has no windows for every number of replicas
            at = words.index("--windows")
            words[at : at + 2] = ["--seeds", "1"]
        return shlex.join([*words, "--for-rate", f"{rate_per_s:.6g}"])

    def _workload(self) -> list[str]:
        spec, held_out = self.spec, self.held_out
        size = held_out.size or 0
        words = ["--workload", spec.source]
        skip = held_out.spec.skip
        words += ["--skip", str(skip)] if skip else []
        if self.attainment is None:
            words += ["--first", str(size if self.is_random else size * held_out.count)]
        else:
            words += ["--requests-per-replica", str(size)]
        words += ["--seeds" if self.is_random else "--windows", str(held_out.count)]
        for name, value in spec.choices.items():
            words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        if self.attainment is None:
            words += ["--time-scale", repr(spec.time_scale)] if spec.time_scale != 1.0 else []
            words += ["--rate", repr(spec.rate)] if spec.rate is not None else []
        return words + _traffic(spec.traffic)

    def _engine(self, setting: Setting) -> list[str]:
        typed = vars(self.engine) | {"cost": setting.engine or self.engine.cost}
        typed |= {name: value for choice in setting.choices.values() for name, value in choice.sizes}
        switches = ("prefix_caching", "empty_blocks_first", "async_scheduling")
        pairs = [(name, value) for name, value in typed.items() if value is not None and name not in switches]
        return [word for name, value in pairs for word in (f"--{name.replace('_', '-')}", str(value))]


def _traffic(traffic: Traffic) -> list[str]:
    words = [] if traffic.concurrency is None else ["--concurrency", str(traffic.concurrency)]
    words += [] if traffic.think_s is None else ["--think-time", repr(traffic.think_s)]
    words += ["--ramp-up", repr(traffic.ramp_up_s)] if traffic.ramp_up_s else []
    return words + (["--sessions"] if traffic.sessions else [])


def serve(space: Space, setting: Setting, tensor_parallel: int) -> list[str]:
    """The commands that start an engine with a setting.

    Args:
        space: what can be set.
        setting: what is.
        tensor_parallel: GPUs of a replica.
    """
    plain = {n: c.value for n, c in setting.choices.items() if n.startswith("--") and c.engine is None}
    flags = [word for n, v in plain.items() for word in ([n] if space.flag(n).switch else [n, str(v)])]
    replicas = setting.replicas(space)
    if space.backend == "vllm":
        words = ["vllm", "serve", _MODEL, *_parallel("--tensor-parallel-size", tensor_parallel)]
        own_router = replicas > 1 and setting.router(space) == space.router
        lines = [shlex.join([*words, *(["--data-parallel-size", str(replicas)] if own_router else []), *flags])]
        return lines + ([] if own_router else _in_front(space, setting, replicas))
    if space.backend == "sglang":
        words = ["python", "-m", "sglang.launch_server", "--model-path", _MODEL]
        return [shlex.join([*words, *_parallel("--tp-size", tensor_parallel), *flags])]
    entries = {n: c.value for n, c in setting.choices.items() if "." in n}
    lines = ["enable_chunked_prefill: true"]
    for name, value in entries.items():
        section, entry = name.split(".")
        lines += [f"{section}:", f"  {entry}: {value}"]
    words = ["trtllm-serve", _MODEL, *_parallel("--tp_size", tensor_parallel), *flags]
    return [
        f"printf '%s\\n' {shlex.join(lines)} > tuned.yaml",
        shlex.join([*words, "--extra_llm_api_options", "tuned.yaml"]),
        *_in_front(space, setting, replicas),
    ]


def _parallel(name: str, count: int) -> list[str]:
    return [name, str(count)] if count > 1 else []


def _in_front(space: Space, setting: Setting, replicas: int) -> list[str]:
    if replicas == 1:
        return []
    return [f"# {replicas} of these, behind a load balancer that routes by {setting.router(space)}"]
