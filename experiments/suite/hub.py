"""A folder per shipped agent as model hubs have it: `python -m experiments.suite.hub -o DIR`.

DIR/NAME/ gets the agent's file and README.md, a model card: YAML between two lines of dashes, then Markdown. All of it
comes from the card in the file and from the agent's certified result in leaderboard/, nothing is typed in.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infermax_gym.agents.cards import SUFFIX, ZOO, read_card
from infermax_gym.agents.storage import load_agent
from infermax_gym.suite.result import read_result
from infermax_gym.suite.tasks import VERSION

LEADERBOARD = Path(__file__).resolve().parents[2] / "leaderboard"
_KINDS = {
    "policy": "knobs of the scheduling algorithm",
    "controller": "small networks that set the knobs of the scheduling algorithm every few simulated seconds",
    "selector": "a small network that says which of a few policies serves next",
    "scorer": "a network that decides whom to admit and to preempt",
}


def write(folder: Path) -> list[Path]:
    """Write the folders of all shipped agents; returns them."""
    written = []
    for file in sorted(ZOO.glob(f"*{SUFFIX}")):
        where = folder / file.stem
        where.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, where / file.name)
        (where / "README.md").write_text(model_card(file), encoding="utf-8")
        written.append(where)
    return written


def model_card(file: Path) -> str:
    """The README.md of an agent."""
    card, tensors = read_card(file.read_bytes())
    scores = scores_of(file.stem)
    head = "\n".join(f"{name}: {json.dumps(value)}" for name, value in front_matter(file.stem, card, scores).items())
    parts = [
        f"# {file.stem}",
        f"{str(card['note'])[:1].upper()}{str(card['note'])[1:]}. A scheduler for LLM inference engines, trained in "
        "infermax-gym's simulator.",
        _use(file.stem),
        _facts(file.stem, card, sum(array.size for array in tensors.values())),
        _training(card),
        _suite(scores),
        _held_out(card),
    ]
    return f"---\n{head}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def scores_of(name: str) -> dict[str, tuple[float, float, float]]:
    """Interquartile mean and interval by task, from the certified result; empty without one."""
    path = LEADERBOARD / f"{name}.json"
    if not path.is_file():
        return {}
    tasks = read_result(path)["tasks"]
    return {task: (record["interquartile_mean"], *record["ci95"]) for task, record in tasks.items()}


def front_matter(
    name: str, card: Mapping[str, Any], scores: Mapping[str, tuple[float, float, float]]
) -> dict[str, Any]:
    """What hubs read of a card; JSON, which YAML takes as it is."""
    results = [
        {
            "task": {"type": "reinforcement-learning", "name": "scheduling of LLM inference"},
            "dataset": {"type": task, "name": task},
            "metrics": [{"type": "score", "name": "interquartile mean", "value": round(score[0], 3)}],
        }
        for task, score in scores.items()
    ]
    return {
        "license": "apache-2.0",
        "library_name": "infermax-gym",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["llm-serving", "scheduling", "gymnasium", str(card["kind"])],
        **({"model-index": [{"name": name, "results": results}]} if results else {}),
    }


def _use(name: str) -> str:
    return f"""## Use

```
pip install infermax-gym
infermax bench --workload azure-conv --agent {name}{SUFFIX}
```

The file holds weights and a card, no code."""


def _facts(name: str, card: Mapping[str, Any], num_weights: int) -> str:
    known = load_agent(name).information.name.lower()
    return f"""## What it is

- Kind: {card["kind"]}, {_KINDS[str(card["kind"])]}.
- Knows of output lengths: {known}.
- Weights: {num_weights:,}.
- SHA-256 of card and weights: `{card["sha256"]}`."""


def _training(card: Mapping[str, Any]) -> str:
    training, versions = card["training"], card.get("versions", {})
    plain = {
        name: value for name, value in training.items() if not isinstance(value, dict | list) and value is not None
    }
    lines = [f"- {name.replace('_', ' ')}: `{value}`" for name, value in plain.items()]
    used = ", ".join(f"{package} {number}" for package, number in sorted(versions.items()))
    return "## Training\n\n" + "\n".join([*lines, f"- versions: {used}"])


def _suite(scores: Mapping[str, tuple[float, float, float]]) -> str:
    if not scores:
        return ""
    lines = [f"| `{task}` | {mean:.3f} | {low:.3f} to {high:.3f} |" for task, (mean, low, high) in scores.items()]
    table = "\n".join(["| task | score | 95 % interval |", "|---|--:|--:|", *lines])
    return f"""## Scores

Of the benchmark suite {VERSION}: 0 is the best default policy in hindsight, 1 a certified bound or the proven optimum.

{table}"""


def _held_out(card: Mapping[str, Any]) -> str:
    scores = card.get("held_out")
    if not scores:
        return ""
    text = "## Held out\n\nAs its training measured it, on requests that training never saw.\n\n"
    if all(isinstance(figures, dict) for figures in scores.values()):
        lines = [f"| {name} | {figures['mean']:.2f} | {figures['p99']:.1f} |" for name, figures in scores.items()]
        return text + "\n".join(["| scheduler | mean latency s | p99 s |", "|---|--:|--:|", *lines])
    return text + "\n".join(f"- {name}: {_figure(value)}" for name, value in scores.items())


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    for where in write(parser.parse_args().out):
        print(where)


if __name__ == "__main__":
    main()
