"""Digests of schedules: what every scheduler, router, environment and shipped agent does, in a few characters each.

`python -m tests.digests` adds what is new to tests/digests.json and drops what is gone. With names it takes those anew;
do that only when a schedule is meant to change, and say in CHANGELOG.md which and why. They are taken of integers
alone (who ran, how many tokens, who was preempted), so the last bit of a logarithm elsewhere does not matter.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.agents import list_agents, load_agent
from infermax_gym.baselines.catalogue import QUICK, SCHEDULERS
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions, router_predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, FleetResult, simulate_fleet
from infermax_gym.engine import EngineConfig, SimulationResult
from infermax_gym.engine.recorder import result_of
from infermax_gym.evaluation import serve
from infermax_gym.workload import Workload, make_workload

FILE = Path(__file__).parent / "digests.json"


@dataclass(frozen=True)
class Case:
    """A workload on an engine, small enough to run under everything and tight enough that schedulers differ."""

    preset: str
    num_requests: int
    rate: float
    config: EngineConfig

    def workload(self) -> Workload:
        """The requests, the same on every call."""
        return make_workload(self.preset, self.num_requests, rate=self.rate, seed=7).with_limits(2.0, 0.1)

    def brief(self) -> Workload:
        """The first third of them, all there at once: for schedulers that decide in Python."""
        few = self.workload().trace_slice(0, self.num_requests // 3)
        return replace(few, arrival_s=np.zeros(len(few)))


CASES = {
    "conv": Case("azure-conv", 150, 5.0, EngineConfig(num_kv_tokens=8_000, max_num_seqs=48)),
    "code": Case("azure-code", 120, 4.0, EngineConfig(num_kv_tokens=30_000, max_num_batched_tokens=2_048)),
    "reasoning": Case("reasoning", 60, 1.0, EngineConfig(num_kv_tokens=12_000, max_num_seqs=64)),
    "mixed": Case("mixed", 120, 3.0, EngineConfig(num_kv_tokens=16_000, num_host_kv_tokens=20_000)),
    "shared-prefixes": Case("conversations", 120, 4.0, EngineConfig(num_kv_tokens=12_000, prefix_caching=True)),
}
"""Five workloads."""


def _hash(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, np.int64).tobytes() + b"|")
    return digest.hexdigest()[:16]


def _schedule(result: SimulationResult) -> str:
    assert result.schedule is not None
    batches = [pair for iteration in result.schedule for pair in iteration.batch]
    sizes = [(len(iteration.batch), len(iteration.preempted)) for iteration in result.schedule]
    victims = [victim for iteration in result.schedule for victim in iteration.preempted]
    return _hash(batches, sizes, victims, result.status, result.num_recomputed_tokens_of)


def _fleet(result: FleetResult) -> str:
    pooled = result.pooled
    order = np.argsort(np.nan_to_num(pooled.finish_s, nan=-1.0), kind="stable")
    return _hash(result.replica_of, order, pooled.num_preemptions_of, [pooled.num_iterations])


def scheduler_digest(name: str) -> dict[str, str]:
    """One of `SCHEDULERS` on every case, alone."""
    contender, digests = SCHEDULERS[name], {}
    for key, case in CASES.items():
        workload = case.workload() if name in QUICK else case.brief()
        run = serve(contender, workload, case.config, seed=1, predict=predictions, record_schedule=True)
        digests[key] = _schedule(run)
    return digests


def agent_digest(name: str) -> dict[str, str]:
    """A policy of the zoo on every case, alone."""
    agent = load_agent(name)
    return {
        key: _schedule(agent.play(case.workload(), case.config, seed=1, record_schedule=True))
        for key, case in CASES.items()
    }


def router_digest(name: str) -> dict[str, str]:
    """One of `ROUTERS` before three replicas, on every case."""
    router, digests = ROUTERS[name], {}
    for key, case in CASES.items():
        workload = case.workload().scaled(0.4)
        fleet = Fleet.uniform(3, case.config, POLICIES["sarathi"])
        predicted_lengths = router_predictions(router, workload, 1)
        digests[key] = _fleet(simulate_fleet(workload, fleet, router, predicted=predicted_lengths, seed=1))
    return digests


def env_digest(name: str) -> dict[str, str]:
    """An environment under a fixed stream of random legal actions, on every case: masks and what came of them."""
    digests = {}
    for key, case in CASES.items():
        settings: dict[str, Any] = {"workloads": (case.workload(),), "num_requests": 60}
        if name != "InferMaxRouter-v0":
            settings |= {"num_kv_tokens": (case.config.num_kv_tokens,) * 2}
        env = gym.make(name, disable_env_checker=True, **settings)
        rng = np.random.default_rng(3)
        observation, _ = env.reset(seed=5)
        seen, done, steps = [], False, 0
        while not done and steps < 3_000:
            if isinstance(observation, dict):
                legal = np.flatnonzero(observation["action_mask"])
                action: Any = int(rng.choice(legal))
                seen.append([action, int(legal.sum()), len(legal)])
            else:
                action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
            observation, _, terminated, truncated, info = env.step(action)
            done, steps = terminated or truncated, steps + 1
        inner = env.unwrapped
        run: Any = inner.run  # type: ignore[attr-defined]
        if name == "InferMaxRouter-v0":
            outcome = _hash(seen, [info["metrics"]["num_finished"], info["metrics"]["num_iterations"]])
        else:
            run.recorder.empty(run.engine)
            result = result_of(run.engine, run.episode.workload, run.recorder, False)
            outcome = _hash(seen, result.num_preemptions_of, result.num_generated_tokens, [result.num_iterations])
        digests[key] = outcome
    return digests


DIGESTS: dict[str, tuple[Callable[[str], dict[str, str]], list[str]]] = {
    "schedulers": (scheduler_digest, list(SCHEDULERS)),
    "agents": (agent_digest, [agent["name"] for agent in list_agents()]),
    "routers": (router_digest, list(ROUTERS)),
    "environments": (env_digest, ["InferMax-v0", "InferMaxKnobs-v0", "InferMaxRouter-v0"]),
}
"""Kinds of things that schedule: how to take a digest of one, and which there are."""


def everything() -> Iterator[tuple[str, str]]:
    """Kind and name of all of them."""
    for kind, (_, names) in DIGESTS.items():
        yield from ((kind, name) for name in names)


def main(anew: Sequence[str]) -> None:
    """Write the file; names in `anew` are taken again though they are there."""
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    found: dict[str, dict[str, Any]] = {kind: {} for kind in DIGESTS}
    for kind, name in everything():
        known = kept.get(kind, {}).get(name)
        found[kind][name] = known if known and name not in anew else DIGESTS[kind][0](name)
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
