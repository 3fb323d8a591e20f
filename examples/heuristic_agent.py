"""A policy of the table as an agent: it plays actions, and its schedule is the kernel's own.

python examples/heuristic_agent.py --policy spf-headroom
"""

from __future__ import annotations

import argparse

import numpy as np

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs import InferMaxEnv, PolicyTeacher


def main() -> None:
    """Play a policy through the environment and through the kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="spf-headroom", choices=sorted(POLICIES))
    parser.add_argument("--steps", type=int, default=100_000, help="decisions at most")
    options = parser.parse_args()
    policy = POLICIES[options.policy]
    env = InferMaxEnv(base=policy, num_requests=80, num_waiting_slots=32, num_running_slots=64)
    teacher = PolicyTeacher(policy, env.layout)
    _, info = env.reset(seed=0)
    total = 0.0
    for _ in range(options.steps):
        _, reward, terminated, _, info = env.step(teacher.action(env))
        total += reward
        if terminated:
            break
    else:
        print(f"stopped after {options.steps} decisions at {info['clock_s']:.1f} s")
        return
    kernel = simulate(env.run.episode.workload, env.run.episode.engine, policy)
    same = np.array_equal(env.run.engine.requests["finish_s"], kernel.finish_s, equal_nan=True)
    metrics = info["metrics"]
    print(f"return {total:.1f}, {metrics['num_finished']} requests finished")
    print(f"mean latency {metrics['latency_s']['mean']:.3f} s; the kernel's schedule: {same}")


if __name__ == "__main__":
    main()
