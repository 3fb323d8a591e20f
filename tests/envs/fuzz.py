"""Random calls of the public API in random order, as nobody should make them: errors are fine, crashes are not.

`python -m tests.envs.fuzz --calls 1000000 --seed 0` runs as many as one likes; a crash of the interpreter, a hang or an
error that is none of the announced ones is a fault. The tests run a few thousand, and `make bounds` some with every
index of compiled code checked.
"""

from __future__ import annotations

import argparse
import copy
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.knobs.vector import InferMaxKnobsVectorEnv
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from tests.envs.playing import small_workload

ANNOUNCED = (
    ValueError,  # settings, actions, states
    gym.error.ResetNeeded,
    gym.error.ClosedEnvironmentError,
    gym.error.Error,  # seeds, as Gymnasium refuses them
)
"""What a call may raise."""

WORKLOADS = tuple(small_workload(40, seed=seed, rate=rate) for seed, rate in enumerate((2.0, 20.0, 200.0)))
"""Made once: drawing requests is not what is tried here."""


class Fuzz:
    """A pool of environments, states and actions, and calls that mix them.

    Args:
        seed: of the calls.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.envs: list[Any] = []
        self.states: list[Any] = [None, "state", []]
        self.counts: Counter[str] = Counter()

    def run(self, num_calls: int) -> Counter[str]:
        """Make calls; counts by name, those that raised an announced error as `name!`."""
        calls: list[Callable[[], Any]] = [self.make, self.reset, self.set_state, self.get_state, self.copy, self.close]
        calls.append(self.step)
        shares = np.array([0.02, 0.05, 0.03, 0.03, 0.01, 0.005])
        bounds = np.cumsum(shares)
        for _ in range(num_calls):
            pick = self.rng.random()
            chosen = int(np.searchsorted(bounds, pick, side="right"))
            call = calls[chosen] if self.envs else self.make
            if call == self.step and pick > 0.998:
                call = self.threads
            name = getattr(call, "__name__", "call")
            try:
                call()
                self.counts[name] += 1
            except ANNOUNCED:
                self.counts[f"{name}!"] += 1
        return self.counts

    def settings(self) -> dict[str, Any]:
        """Sound and unsound settings of one environment or another."""
        rng = self.rng
        chosen: dict[str, Any] = {
            "workloads": (WORKLOADS[int(rng.integers(len(WORKLOADS)))],),
            "num_requests": int(rng.integers(2, 20)),
            "num_kv_tokens": int(rng.choice([100, 600, 6_000])),
            "max_num_seqs": int(rng.choice([1, 2, 8, 256])),
            "block_size": int(rng.choice([1, 16])),
            "time_limit_s": float(rng.choice([0.5, 5.0, np.inf], p=[0.05, 0.15, 0.8])),
            "max_decisions": rng.choice(np.array([None, 1, 100]), p=[0.5, 0.05, 0.45]),
            "information": str(rng.choice(["none", "noisy"])),
        }
        if rng.random() < 0.1:
            name = str(rng.choice(sorted(chosen)))
            chosen[name] = [None, -1, "x", np.nan, (3, 1), 0, 2.5, []][int(rng.integers(8))]
        return chosen

    def make(self) -> None:
        """A new environment; the pool stays small."""
        rng, settings = self.rng, self.settings()
        kind = int(rng.integers(6))
        if kind in (0, 1):
            settings |= {"num_waiting_slots": int(rng.integers(1, 9)), "num_running_slots": int(rng.integers(1, 9))}
            settings |= {"decide": str(rng.choice(["event", "iteration", "change"])), "backlog": int(rng.integers(6))}
        if kind in (3, 4):
            settings |= {"num_replicas": int(rng.integers(1, 5)), "staleness_s": float(rng.choice([0.0, 0.3]))}
        modes = ["SAME_STEP", "NEXT_STEP", "DISABLED"]
        settings["metrics"] = bool(rng.random() < 0.1)
        vector = {"autoreset_mode": modes[int(rng.integers(3))], "copy": bool(rng.integers(2))}
        lanes = int(rng.integers(0, 4))
        made: Any = [
            lambda: InferMaxEnv(flat=bool(rng.integers(2)), **settings),
            lambda: InferMaxVectorEnv(lanes, **vector, **settings),
            lambda: InferMaxKnobsEnv(interval_s=float(rng.choice([0.1, 2.0])), **settings),
            lambda: InferMaxRouterEnv(**settings),
            lambda: InferMaxRouterVectorEnv(lanes, **vector, **settings),
            lambda: InferMaxKnobsVectorEnv(lanes, interval_s=0.5, **vector, **settings),
        ][kind]()
        self.envs.append(made)
        if len(self.envs) > 12:
            del self.envs[int(rng.integers(len(self.envs)))]
        if rng.random() < 0.9:
            made.reset(seed=int(rng.integers(99)))

    def one(self) -> Any:
        return self.envs[int(self.rng.integers(len(self.envs)))]

    def reset(self) -> None:
        env, rng = self.one(), self.rng
        options: list[Any] = [None, None, {"num_requests": 3}, {"speed": 1}, {"num_kv_tokens": -4}, [], "x"]
        options.append({"reset_mask": rng.random(getattr(env, "num_envs", 2)) < 0.5})
        seeds: list[Any] = [None, 3, int(rng.integers(99)), -1, "a", [1, 2]]
        seed, option = seeds[int(rng.integers(len(seeds)))], options[int(rng.integers(len(options)))]
        if rng.random() < 0.6:
            seed, option = int(rng.integers(99)), None
        env.reset(seed=seed, options=option)

    def action(self, env: Any) -> Any:
        """Mostly a legal action."""
        rng = self.rng
        if rng.random() < 0.1:
            odd: list[Any] = [-1, 10**6, 2**63, 1.5, np.nan, None, "x", [], [0], [[0, 1]], np.array([np.nan] * 11)]
            odd += [np.zeros(2, int), np.zeros(3, np.uint8), np.full(11, np.inf), np.int64(2), True, {}, np.zeros(0)]
            return odd[int(rng.integers(len(odd)))]
        if not hasattr(env, "action_masks"):
            return env.action_space.sample()
        masks = np.atleast_2d(env.action_masks())
        picks = [int(rng.choice(np.flatnonzero(mask))) if mask.any() else 0 for mask in masks]
        return np.array(picks) if hasattr(env, "num_envs") else picks[0]

    def step(self) -> None:
        env = self.one()
        env.step(self.action(env))

    def get_state(self) -> None:
        self.states.append(self.one().get_state())
        if len(self.states) > 20:
            del self.states[3]

    def set_state(self) -> None:
        self.one().set_state(self.states[int(self.rng.integers(len(self.states)))])

    def copy(self) -> None:
        env = self.one()
        way = int(self.rng.integers(3))
        self.envs.append(copy.deepcopy(env) if way else pickle.loads(pickle.dumps(env)))
        if way == 2 and isinstance(self.states[-1], list):
            self.states.append(copy.deepcopy(self.states[-1]))
        if len(self.envs) > 12:
            del self.envs[0]

    def close(self) -> None:
        env = self.one()
        env.close()
        if self.rng.random() < 0.7:
            self.envs = [other for other in self.envs if other is not env]

    def threads(self) -> None:
        """Several threads at one environment: they step it, begin it anew, copy it, and now and then close it."""
        env = self.one()
        actions = [self.action(env) for _ in range(8)]
        others: list[Callable[[], Any]] = [env.reset, env.get_state, lambda: copy.deepcopy(env), env.close]
        faults: list[BaseException] = []

        def play(calls: list[Callable[[], Any]]) -> None:
            for call in calls:
                try:
                    call()
                except ANNOUNCED:
                    continue
                except BaseException as fault:  # told to the main thread
                    faults.append(fault)

        steps: list[list[Callable[[], Any]]] = [
            [partial(env.step, action) for action in actions[i::3]] for i in range(3)
        ]
        sides = [others[int(pick)] for pick in self.rng.choice(4, 3, p=[0.4, 0.25, 0.25, 0.1])]
        workers = [threading.Thread(target=play, args=(calls,)) for calls in (*(part * 4 for part in steps), sides)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if faults:
            raise faults[0]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, count in sorted(Fuzz(options.seed).run(options.calls).items()):
        print(f"{name:12} {count:,}")


if __name__ == "__main__":
    main()
