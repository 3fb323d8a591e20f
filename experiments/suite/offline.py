"""Two offline learners on the data sets of a task: `python -m experiments.suite.offline --task long-context`.

Behaviour cloning of the expert (`infermax_gym.agents.imitation.clone`), and advantage-weighted regression (Peng et al.,
2019, arXiv 1910.00177) on everybody's trajectories: a value function is fitted to returns, and actions are cloned
with weights exp(advantage / beta). Prints the scores on the test episodes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from infermax_gym.agents.agent import Agent
from infermax_gym.agents.imitation import Demonstrations, clone
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.suite.data import load_trajectories, make_dataset, transitions
from infermax_gym.suite.episodes import scheduling_config
from infermax_gym.suite.play import SuiteAgent, random_agent
from infermax_gym.suite.result import evaluate
from infermax_gym.suite.tasks import Task, task_of
from infermax_gym.suite.trajectories import Trajectory, best_default, expert

BETA, MOST_WEIGHT = 0.5, 20.0
"""Temperature in standard deviations of the advantage; the largest weight of an action."""


def network_for(task: Task, observations: NDArray[np.float32], seed: int) -> ScorerNetwork:
    """A fresh network for a task's environment."""
    torch.manual_seed(seed)
    config = scheduling_config(task)
    network = ScorerNetwork(config.layout, config.level_shares, 32)
    network.adapt(torch.from_numpy(observations))
    return network


def returns_to_go(played: list[Trajectory]) -> NDArray[np.float32]:
    """(n,) rewards from each decision to the end of its episode, standardised."""
    sums = np.concatenate([np.cumsum(t.rewards[::-1])[::-1] for t in played])
    return np.asarray((sums - sums.mean()) / sums.std(), np.float32)


def fit_value(data: Demonstrations, returns: NDArray[np.float32], steps: int, seed: int) -> NDArray[np.float32]:
    """(n,) a small network's estimate of the returns."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(data.observations), torch.from_numpy(returns)
    value = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.Adam(value.parameters(), 1e-3)
    for _ in range(steps):
        batch = torch.randint(len(x), (512,))
        loss = ((value(x[batch])[:, 0] - y[batch]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.inference_mode():
        return np.asarray(value(x)[:, 0].numpy(), np.float32)


def weighted_regression(
    network: ScorerNetwork, data: Demonstrations, weights: NDArray[np.float32], steps: int, seed: int
) -> None:
    """Raise the likelihood of actions by their weights."""
    torch.manual_seed(seed)
    x, masks = torch.from_numpy(data.observations), torch.from_numpy(data.masks)
    actions, w = torch.from_numpy(data.actions), torch.from_numpy(weights)
    free = torch.from_numpy(np.flatnonzero(data.masks.sum(1) > 1))
    optimizer = torch.optim.Adam([p for n, p in network.named_parameters() if not n.startswith("value_head")], 2e-3)
    for _ in range(steps):
        batch = free[torch.randint(len(free), (512,))]
        log_probs = network.log_probs(x[batch], masks[batch]).gather(1, actions[batch].unsqueeze(1))[:, 0]
        loss = -(w[batch] * log_probs).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def learn(task: Task, folder: Path, steps: int, seed: int) -> dict[str, ScorerNetwork]:
    """Both learners, trained on the data sets of a folder."""
    sets = {kind: load_trajectories(task, kind, folder) for kind in ("random", "default", "expert")}
    shown = Demonstrations(*transitions(sets["expert"]))
    cloned = network_for(task, shown.observations, seed)
    clone(cloned, shown, epochs=max(1, steps * 512 // len(shown)), seed=seed)
    played = [t for some in sets.values() for t in some]
    data = Demonstrations(*transitions(played))
    returns = returns_to_go(played)
    advantage = returns - fit_value(data, returns, steps, seed)
    weights = np.minimum(np.exp(advantage / (BETA * advantage.std())), MOST_WEIGHT).astype(np.float32)
    regressed = network_for(task, data.observations, seed)
    weighted_regression(regressed, data, weights, steps, seed)
    return {"behaviour-cloning": cloned, "advantage-weighted-regression": regressed}


def references(task: Task) -> dict[str, SuiteAgent]:
    """Who played the data sets, as they play with no action in between."""
    return {"random": random_agent(), "default": POLICIES[best_default(task)], "expert": expert(task)}


def report(name: str, runs: dict[str, SuiteAgent], task: Task) -> None:
    """Print a score on the test episodes."""
    found = evaluate(runs, name=name, tasks=[task])
    low, high = found["ci95"]
    print(f"{name:<32} {len(runs):>4} {found['interquartile_mean']:7.3f}  [{low:.3f}, {high:.3f}]", flush=True)


def main() -> None:
    """Make the data sets, learn, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="long-context")
    parser.add_argument("--episodes", type=int, default=30, help="of each data set")
    parser.add_argument("--steps", type=int, default=600, help="of gradient descent")
    parser.add_argument("--seeds", type=int, default=3, help="training runs, seeds 0 and up")
    args = parser.parse_args()
    task = task_of(args.task)
    torch.set_num_threads(1)
    print(f"{'agent':<32} {'runs':>4} {'score':>7}  95 % interval")
    for name, agent in references(task).items():
        report(name, {"0" * 64: agent}, task)
    learned: dict[str, dict[str, SuiteAgent]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("random", "default", "expert"):
            make_dataset(task, kind, Path(folder), args.episodes)  # type: ignore[arg-type]
        for seed in range(args.seeds):
            for method, network in learn(task, Path(folder), args.steps, seed).items():
                agent = Agent(method, network=network, config=scheduling_config(task))
                learned.setdefault(method, {})[f"{seed:064x}"] = agent
    for method, runs in learned.items():
        report(method, runs, task)


if __name__ == "__main__":
    main()
