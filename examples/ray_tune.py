"""Ray Tune over `train.py`: learning rates and seeds of PPO, each trial a run folder; says so and stops without Ray.

A trial is a process of its own, so a trial that dies takes no other with it, and its folder can be resumed by hand.
Trials are judged by their learning curves, not by the held-out slices: those are for the winner alone.

python examples/ray_tune.py --steps 60000 --trials 8
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def trial(settings: dict[str, Any]) -> dict[str, float]:
    """Train once; the lowest loss of the curve."""
    folder = Path.cwd() / "run"
    command = [sys.executable, "train.py", "--algo", "ppo", "--lanes", "8", "--rollout", "128", "--every", "1"]
    for name in ("steps", "seed", "learning_rate", "requests"):
        command += [f"--{name.replace('_', '-')}", str(settings[name])]
    subprocess.run([*command, "--slices", "1", "--out", str(folder)], cwd=ROOT, check=True, capture_output=True)
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        return {"loss": min(float(point["loss"]) for point in csv.DictReader(file))}


def main() -> None:
    """Search, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60_000, help="decisions of a trial")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--requests", type=int, default=100, help="requests of a training slice")
    parser.add_argument("--cpus", type=int, help="of this machine; all of them by default")
    options = parser.parse_args()
    if find_spec("ray") is None:
        print("Ray is not installed; pip install 'ray[tune]' to search with it")
        return
    import ray
    from ray import tune

    ray.init(
        address="local", num_cpus=options.cpus, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    space = {
        "learning_rate": tune.loguniform(1e-4, 3e-3),
        "seed": tune.randint(0, 1_000),
        "steps": options.steps,
        "requests": options.requests,
    }
    search = tune.TuneConfig(metric="loss", mode="min", num_samples=options.trials)
    results = tune.Tuner(trial, param_space=space, tune_config=search).fit()
    best = results.get_best_result()
    print(f"{results.num_errors} of {len(results)} trials failed")
    print(
        f"best: learning rate {best.config['learning_rate']:.2g}, loss {best.metrics['loss']:.4f}, in {best.path}/run"
    )


if __name__ == "__main__":
    main()
