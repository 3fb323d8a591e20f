"""How fast the environments are: decisions per second, masks and observations included, on one core.

    python benchmarks/environments.py

Random legal actions from a compiled picker, whose own time does not count: any legal action alike, and, in the last
column, the kind drawn first, so that more decisions are RUN and episodes come to their ends, resets included. Times are
of the thread, best of many short rounds, in turns with CartPole's, since machines are shared. The last line trains
MaskablePPO for a moment and reports which share of the time went into the environment.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.compile import compiled
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv

ROUNDS = 5
SHORT_ROUNDS = 25


@compiled
def pick_legal(mask: Any, uniform: Any, out: Any) -> None:
    """A random legal action per lane: mask (n, A) int8, uniform (n,) in [0, 1), out (n,) int64."""
    for i in range(mask.shape[0]):
        left = int(uniform[i] * mask[i].sum())
        for j in range(mask.shape[1]):
            if mask[i, j]:
                if left == 0:
                    out[i] = j
                    break
                left -= 1


@compiled
def pick_by_kind(mask: Any, uniform: Any, out: Any, first_admit: int, first_preempt: int) -> None:
    """The same with the kind drawn first: RUN, ADMIT, PREEMPT in the shares 6 : 3 : 1 where all are legal.

    mask (n, A) int8, uniform (n,) in [0, 1), out (n,) int64.
    """
    starts = (0, first_admit, first_preempt, mask.shape[1])
    for i in range(mask.shape[0]):
        counts = (mask[i, : starts[1]].sum(), mask[i, starts[1] : starts[2]].sum(), mask[i, starts[2] :].sum())
        weights = (6.0 * (counts[0] > 0), 3.0 * (counts[1] > 0), 1.0 * (counts[2] > 0))
        point = uniform[i] * (weights[0] + weights[1] + weights[2])
        kind = 0
        while kind < 2 and point >= weights[kind]:
            point -= weights[kind]
            kind += 1
        left = min(int(point / weights[kind] * counts[kind]), counts[kind] - 1)
        for j in range(starts[kind], starts[kind + 1]):
            if mask[i, j]:
                if left == 0:
                    out[i] = j
                    break
                left -= 1


def best_of(work: Callable[[], None], rounds: int = ROUNDS) -> float:
    """Least process seconds of several rounds of `work`, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def vector_rates(lanes: int, decisions: int) -> tuple[float, float, float]:
    """Steps per second with so many lanes: any legal action alike, the kind drawn first, and Gymnasium's own CartPole.

    The three take turns, in many short rounds, and the best of each counts.
    """
    env = InferMaxVectorEnv(lanes, copy=False)
    mask = env.reset(seed=0)[1]["action_mask"]
    pole = gym.make_vec("CartPole-v1", num_envs=lanes, vectorization_mode="vector_entry_point")
    pole.reset(seed=0)
    steps = max(decisions // lanes // SHORT_ROUNDS, 20)
    uniform = np.random.default_rng(0).random((steps, lanes))
    actions = np.zeros(lanes, np.int64)
    starts = (env.layout.num_chunk_budgets, env.layout.num_chunk_budgets + env.layout.num_waiting_slots)

    def any_legal(u: Any) -> None:
        pick_legal(mask, u, actions)

    def by_kind(u: Any) -> None:
        pick_by_kind(mask, u, actions, *starts)

    def to_the_left(_: Any) -> None:
        actions[:] = 0

    players = ((env, any_legal), (env, by_kind), (pole, to_the_left))
    best = [np.inf] * len(players)
    for _ in range(SHORT_ROUNDS):
        for k, (played, choose) in enumerate(players):
            inside = 0.0
            for u in uniform:
                choose(u)
                began = time.thread_time()
                played.step(actions)
                inside += time.thread_time() - began
            best[k] = min(best[k], inside)
    first, second, third = (steps * lanes / seconds for seconds in best)
    return first, second, third


def thread_speedup(lanes: int, decisions: int, num_threads: int = 2) -> float:
    """Wall seconds of a step with one thread over those with several, best of many rounds of each, in turns."""
    envs = [InferMaxVectorEnv(lanes, copy=False, metrics=False, num_threads=k) for k in (1, num_threads)]
    masks = [env.reset(seed=0)[1]["action_mask"] for env in envs]
    steps = max(decisions // lanes // ROUNDS, 20)
    uniform = np.random.default_rng(0).random((steps, lanes))
    actions = np.zeros(lanes, np.int64)
    best = [np.inf, np.inf]
    for _ in range(6 * ROUNDS):
        for k, (env, mask) in enumerate(zip(envs, masks, strict=True)):
            wall_s = 0.0
            for u in uniform:
                pick_legal(mask, u, actions)
                began = time.perf_counter()
                env.step(actions)
                wall_s += time.perf_counter() - began
            best[k] = min(best[k], wall_s)
    for env in envs:
        env.close()
    return best[0] / best[1]


def routing_rate(lanes: int, decisions: int, num_replicas: int) -> float:
    """Decisions per second of `InferMaxRouter-v0` with so many lanes; replicas chosen at random beforehand."""
    env = InferMaxRouterVectorEnv(lanes, num_replicas=num_replicas, copy=False, metrics=False)
    env.reset(seed=0)
    steps = max(decisions // lanes, 300)
    actions = np.random.default_rng(0).integers(0, num_replicas, (steps, lanes))

    def play() -> None:
        for action in actions:
            env.step(action)

    return steps * lanes / best_of(play)


def scalar_rate(decisions: int) -> float:
    """Decisions per second of the scalar environment."""
    env = InferMaxEnv()
    observation, _ = env.reset(seed=0)
    mask = observation["action_mask"][None]
    uniform = np.random.default_rng(0).random((decisions, 1))
    action = np.zeros(1, np.int64)

    def play() -> None:
        nonlocal mask
        for u in uniform:
            pick_legal(mask, u, action)
            observation, _, terminated, truncated, _ = env.step(action[0])
            if terminated or truncated:
                observation, _ = env.reset()
            mask = observation["action_mask"][None]

    def pick() -> None:
        for u in uniform:
            pick_legal(mask, u, action)

    picking = best_of(pick)
    return decisions / (best_of(play) - picking)


def environment_share(steps: int) -> float:
    """Share of MaskablePPO's training time that is spent in the environment (16 lanes, 64 steps per rollout)."""
    import torch
    from sb3_contrib import MaskablePPO

    from infermax_gym.agents.vec_env import InferMaxVecEnv

    torch.set_num_threads(1)
    env = InferMaxVecEnv(16)
    inside = 0.0
    wait = env.step_wait

    def timed() -> Any:
        nonlocal inside
        began = time.process_time()
        result = wait()
        inside += time.process_time() - began
        return result

    model = MaskablePPO("MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=4, seed=0)
    model.learn(1024)
    env.step_wait = timed  # type: ignore[method-assign]
    began = time.process_time()
    model.learn(steps)
    return inside / (time.process_time() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=100_000, help="decisions of a round")
    parser.add_argument("--train-steps", type=int, default=8192, help="steps of the training measured; 0 for none")
    options = parser.parse_args()
    line = "{:<32} {:>5} {:>15} {:>31} {:>16}".format
    print(line("environment", "lanes", "decisions per s", "of CartPole's native vector form", "kind drawn first"))
    for lanes in (256, 16, 1, 1024):
        rate, by_kind, of_pole = vector_rates(lanes, options.decisions)
        print(line("vector", lanes, f"{rate:,.0f}", f"{rate / of_pole:.0%}", f"{by_kind:,.0f}"), flush=True)
    print(line("scalar", 1, f"{scalar_rate(options.decisions // 4):,.0f}", "", ""), flush=True)
    for num_replicas in (4, 64):
        rate = routing_rate(64, options.decisions, num_replicas)
        print(line(f"InferMaxRouter-v0, {num_replicas} replicas", 64, f"{rate:,.0f}", "", ""), flush=True)
    if hasattr(os, "getloadavg"):
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for lanes in (256, 1024):
        speedup = thread_speedup(lanes, options.decisions)
        print(f"two threads, {lanes} lanes: {speedup:.2f} times one (wall)", flush=True)
    if options.train_steps:
        share = environment_share(options.train_steps)
        print(f"environment's share of MaskablePPO training (16 lanes, 64 steps, MLP): {share:.1%}")


if __name__ == "__main__":
    main()
