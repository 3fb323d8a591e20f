"""Train a scheduling policy, then compare it with the usual schedulers on trace slices it has never seen.

    python train.py                                  evolution on long contexts, about a minute
    python train.py --algo ppo --minutes 20          a network, from scratch
    python train.py --algo bc                        a network that imitates a policy of the table
    python train.py --algo search --minutes 10       such a network, improved by expert iteration

    python train.py --algo sac --steps 5000          stable-baselines3's own algorithms (also dqn, ppo-knobs)

The run folder gets config.json, curve.csv, policy.safetensors (`infermax bench --agent`), summary.json, curve.png, and
tensorboard/ with logs of whatever learns by gradients. Alternatives leave model.zip instead of policy.safetensors.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from infermax_gym import files
from infermax_gym.agents import Agent, AgentError, save_agent
from infermax_gym.agents.play import RandomPlayer
from infermax_gym.agents.recipes import ALGORITHMS, Point, Recipe, train, train_player
from infermax_gym.agents.scenario import DEFAULT_SCENARIO, TEST, TrainingScenario, trace_slices
from infermax_gym.agents.storage import write_bytes
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.evaluation import (
    Contender,
    Scenario,
    WorkloadSpec,
    comparison_document,
    evaluate,
    render_comparison,
    resolved_options,
)
from infermax_gym.workload import WorkloadError

RIVALS = ("sarathi", "vllm", "vllm-v0", "srf", "shortest-prompt-first", "least-attained-service", "spf-headroom")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a scheduling policy and compare it with the usual ones.")
    add, usual = parser.add_argument, DEFAULT_SCENARIO
    add("--workload", default=usual.workload, help="a preset, or a trace file (first half: training; second: test)")
    add("--algo", choices=[*ALGORITHMS, "sac", "ppo-knobs", "dqn"], default="es")
    add("--minutes", type=float, help="training time (default 1 for es, else 4, unless --steps)")
    add("--steps", type=int, help="generations (es), demonstrations (bc), decisions (ppo) or rounds (search)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/latest"), metavar="DIR")
    add("--resume", action="store_true", help="go on from DIR's checkpoint (ppo)")
    add("--warm-start", action="store_true", help="ppo begins with a clone of --teacher")
    add("--plain-rewards", action="store_true", help="ppo without base-policy rollouts of --teacher")
    add("--teacher", default="spf-headroom", help="policy that bc imitates; base policy of ppo's rollouts")
    add("--ahead-s", type=float, help="how far ppo looks beyond a decision's own gain, in simulated seconds")
    add("--learning-rate", type=float, help="of ppo, at the beginning")
    add("--kv-tokens", type=int, default=usual.num_kv_tokens)
    add("--time-scale", type=float, default=usual.time_scale, help="factor on arrival times; below 1 raises the load")
    add("--cost", default=usual.cost)
    add("--max-num-batched-tokens", type=int, default=usual.max_num_batched_tokens)
    add("--requests", type=int, default=usual.num_requests, help="requests of a trace slice")
    add("--lanes", type=int, default=32, help="environments side by side (ppo)")
    add("--rollout", type=int, default=256, help="decisions of a lane between two updates (ppo)")
    add("--every", type=int, default=2, help="rollouts (ppo), or times 5,000 decisions, between two evaluations")
    add("--patience", type=int, help="stop after so many evaluations without a better policy")
    add("--slices", "--windows", type=int, default=6, metavar="N", help="held-out trace slices of the comparison")
    return parser.parse_args(arguments)


MAY_CHANGE = ("minutes", "steps", "every", "patience")
"""What a run may be given anew where it is resumed."""


def check_resumed(file: Path, config: dict[str, Any]) -> None:
    """See that a run goes on as it began: its checkpoint holds engines of its own scenario.

    Raises:
        AgentError: it began otherwise.
    """
    if not file.exists():
        return  # the missing checkpoint says more
    try:
        before = json.loads(files.read_text(file))
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise AgentError(f"{file}: is no JSON object; expected what an earlier run wrote there")
    for name in (name for name in config if name not in MAY_CHANGE and before.get(name) != config[name]):
        was, now = before.get(name), config[name]
        if isinstance(was, dict) and isinstance(now, dict):
            parts = ((f"{name}: {k}", was.get(k), now[k]) for k in now if was.get(k) != now[k])
            name, was, now = next(parts, (name, was, now))
        raise AgentError(f"{file.parent}: was begun with {name} {was}, not {now}; resume it with what it began with")


def compare(name: str, learned: Contender, scenario: TrainingScenario, num_slices: int) -> dict[str, Any]:
    """What was learned, its rivals and random play on held-out trace slices, as a document of `infermax bench`."""
    held_out = trace_slices(scenario, num_slices, split=TEST)
    contenders: dict[str, Contender] = {
        name: learned,
        **{name: POLICIES[name] for name in RIVALS},
        "random": RandomPlayer(),
    }
    engine = scenario.engine
    common = Scenario(lambda seed: held_out[seed].workload, engine)
    evaluation = evaluate(common, contenders, range(num_slices), predictions)
    spec = WorkloadSpec(scenario.workload, first=scenario.num_requests, time_scale=scenario.time_scale)
    config = resolved_options(spec, held_out[0].workload, engine, None, seeds=num_slices)
    return comparison_document(config, evaluation.summary())


def served(name: str, document: dict[str, Any]) -> str:
    """Whom a contender has served on the held-out slices, beside its return: a return alone would not say."""
    figures = document["policies"][name]
    finished, mean_s = figures["num_finished"], figures["latency_s"]["mean"]
    return (
        f"{name}: return {-finished * mean_s:,.1f} (minus request-seconds) a slice, "
        f"{finished:,.0f} of {figures['num_requests']:,.0f} requests finished, mean latency {mean_s:.2f} s"
    )


def write_curve(folder: Path, points: list[Point]) -> None:
    """curve.csv, and curve.png where matplotlib is there."""
    names = list(dict.fromkeys(name for point in points for name in point))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    write_bytes(folder / "curve.csv", text.getvalue().encode())
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([point["step"] for point in points], [point["loss"] for point in points])
    axes.set(xlabel="step", ylabel="loss (see curve.csv)", title="Learning curve")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(folder / "curve.png", picture.getvalue())


def run(options: argparse.Namespace, screen: Console) -> None:
    """Train, compare, write; alone in the run folder."""
    options.out.mkdir(parents=True, exist_ok=True)
    with files.locked(options.out):
        _run(options, screen)


def _run(options: argparse.Namespace, screen: Console) -> None:
    usual_minutes = 1.0 if options.algo == "es" else 4.0
    minutes = options.minutes if options.minutes or options.steps else usual_minutes
    scenario = TrainingScenario(options.workload, options.requests, options.time_scale, options.kv_tokens, options.cost)
    scenario = replace(scenario, max_num_batched_tokens=options.max_num_batched_tokens)
    recipe = Recipe(
        options.algo, scenario, options.seed, minutes, options.steps, options.teacher, options.warm_start,
        folder=options.out, resume=options.resume, num_lanes=options.lanes, num_steps=options.rollout,
        every=options.every, patience=options.patience, base_rollout=not options.plain_rewards,
        ahead_s=options.ahead_s, learning_rate=options.learning_rate,
    )  # fmt: skip
    config = {"schema": 1, **recipe.card()["training"]}
    if options.resume:
        check_resumed(options.out / "config.json", config)
    write_bytes(options.out / "config.json", json.dumps(config, indent=1).encode())
    points: list[Point] = []
    columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(options.algo, total=1.0)

        def report(point: Point) -> None:
            points.append(point)
            screen.print("  ".join(f"{name} {value:,.4g}" for name, value in point.items()), highlight=False)
            by_time = point.get("elapsed_s", 0.0) / (60.0 * minutes) if minutes else 0.0
            bar.update(task, completed=min(1.0, max(by_time, point["step"] / (options.steps or math.inf))))

        learned = train(recipe, report) if options.algo in ALGORITHMS else train_player(recipe, report)
    write_curve(options.out, points)
    name = learned.name if isinstance(learned, Agent) else options.algo
    document = compare(name, learned, scenario, options.slices)
    if isinstance(learned, Agent):
        held_out = {name: figures["latency_s"] for name, figures in document["policies"].items()}
        save_agent(options.out / "policy.safetensors", replace(learned, card={**learned.card, "held_out": held_out}))
    write_bytes(options.out / "summary.json", json.dumps(document, indent=1).encode())
    render_comparison(document, Console())
    print(served(name, document))


def _say_nothing_of_files(failed: threading.ExceptHookArgs) -> None:
    """For threads that write logs: where the disk is full, the run meets the same error and says it in one line."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    before, threading.excepthook = threading.excepthook, _say_nothing_of_files
    try:
        run(parse(arguments), Console(stderr=True))
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"train: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except (AgentError, WorkloadError, ValueError) as error:
        print(f"train: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted", file=sys.stderr)
        return 130
    finally:
        threading.excepthook = before
    return 0


if __name__ == "__main__":
    sys.exit(main())
