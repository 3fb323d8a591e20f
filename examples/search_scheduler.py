"""Search a scheduler of three expressions by random mutation: `python examples/search_scheduler.py --steps 60`.

A stand-in for a program that writes better expressions, such as a language model: propose, score on training episodes,
keep the best. At the end the best one plays the test episodes, once.
"""

from __future__ import annotations

import argparse
import random

from infermax_gym.suite.expressions import ExpressionPolicy
from infermax_gym.suite.search_task import score

KEYS = ("known", "prompt", "known - {a} * wait", "known * log1p({a}) - wait", "max(known, {a} * 100)", "-wait")
VICTIMS = ("-wait", "-computed", "-generated", "known")
CAPS = ("{a}", "{a} * 2", "{a} * capacity / 100000", "max({a}, num_waiting / 2)", "1000")
TASK = "long-context"


def proposal(rng: random.Random, parent: ExpressionPolicy) -> ExpressionPolicy:
    """The parent with one or two of its expressions replaced."""
    parts = {"queue_key": parent.queue_key, "victim_key": parent.victim_key, "max_running": parent.max_running}
    for name in rng.sample(sorted(parts), rng.choice((1, 2))):
        choices = {"queue_key": KEYS, "victim_key": VICTIMS, "max_running": CAPS}[name]
        parts[name] = rng.choice(choices).format(a=rng.randint(1, 30))
    return ExpressionPolicy(**parts)


def main() -> None:
    """Search, then test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="schedulers scored")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    best = ExpressionPolicy("known")
    found = score(best, TASK, num_episodes=1)
    print(f"shortest first: score {found['score']:.3f}, {found['distance']:.2f} s above the bound")
    for step in range(args.steps):
        tried = proposal(rng, best)
        answer = score(tried, TASK, num_episodes=1)
        if answer["score"] > found["score"]:
            best, found = tried, answer
            print(f"{step}: score {found['score']:.3f}, {found['distance']:.2f} s above the bound: {best}")
    if args.steps >= 10:
        tested = score(best, TASK, held_out=True)
        print(f"test episodes: score {tested['score']:.3f} (the best default has 0), {tested['objective']:.2f} s")


if __name__ == "__main__":
    main()
