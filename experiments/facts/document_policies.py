"""Write docs/policies.md, the table of schedulers for readers, from the table of schedulers for the engine.

python -m experiments.facts.document_policies --out docs/policies.md    write the page; without --out it is printed
python -m experiments.facts.document_policies --check                   exit 1 if docs/policies.md is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import fields
from enum import IntEnum
from pathlib import Path

from infermax_gym.baselines.catalogue import NESTED_WAIT, PLAYERS, QUICK
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.prefix_aware import PREFIX_AWARE
from infermax_gym.baselines.table.shares import TABLE
from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QUEUE_FEATURES, VICTIM_FEATURES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"

_SIZED = {shares.name for shares in TABLE}


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


INTRODUCTION = f"""\
# The table of schedulers

<!-- Written by `python -m experiments.facts.document_policies --out docs/policies.md` from baselines/; edit there. -->

Every scheduler, its source, what it is good and bad at. [Choose a scheduler](guides/choose-a-scheduler.md) is the short
way; [schedulers.md](schedulers.md) compares all of them on four workloads.

Most are settings of the engine's one scheduling algorithm (`baselines/table/`). [engine.md](engine.md) states it,
`infermax_gym/engine/policy.py` explains every knob.
Some ({_names(shares.name for shares in TABLE)}) take their sizes from the engine:
`SCHEDULERS[name].resolve(engine)` is a policy of the table. They run in fleets and in vLLM like the others.
Some ({_names(name for name in (*PLAYERS, NESTED_WAIT.name) if name not in _SIZED)}) have code
of their own. They serve whole workloads: `SCHEDULERS[name].play(workload, engine)`, in `baselines/catalogue.py`.
`infermax list policies` prints the same list. This page is written by
`python -m experiments.facts.document_policies --out docs/policies.md`.

```python
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import load_workload

workload, policy = load_workload("azure-conv"), POLICIES["spf-headroom"]
result = simulate(workload, EngineConfig(), policy, predicted=predictions(policy, workload))
```

A rule of your own is a policy too: `Policy("mine", ...)`, or `dataclasses.replace` of one of these. Rules that are no
setting of the algorithm implement `infermax_gym.engine.Scheduler`.

**Lengths known** says what a policy knows of output lengths: nothing (`none`), an upper bound on all of them
(`bound`), a noisy prediction of each (`predicted`), or the truth (`oracle`). Compare within a class: no engine knows
what an oracle knows.
"""

PREFIX = """\
## Prefix-aware schedulers

They look at what is cached, which changes with every block; so they are written in Python (`baselines/prefix_aware`,
some thousand iterations a second), and `--policies all` leaves them out. Without `--prefix-caching` their orders are
FCFS (of `dlpm`, within a tenant). [prefix-caching.md](prefix-caching.md) says more.
"""

ALIASES = """\
## Other names

vLLM's policies are named by version where the schedule changes; `vllm` is the newest that is modelled, 0.33. What they
were called before, and versions that schedule alike, are further names of the same policies: every command and table of
the library takes them, `infermax list policies` shows them, and they are no second entry.
"""

SETTINGS = """\
## Settings

What each policy sets; everything else is as in `Policy`. `C` is the token budget of an iteration, `B` the cap on
running requests.
"""


def page() -> str:
    """The whole page."""
    head = "| policy | lengths known | good and bad at | source |\n| --- | --- | --- | --- |\n"
    rows, aware = (
        "".join(f"| `{name}` | {row.information.name.lower()} | {row.note} | {row.source} |\n" for name, row in table)
        for table in ({**QUICK, NESTED_WAIT.name: NESTED_WAIT}.items(), PREFIX_AWARE.items())
    )
    settings = "| policy | settings |\n| --- | --- |\n"
    settings += "".join(
        f"| `{name}` | {', '.join(settings_of(row)) or 'all as they are'} |\n" for name, row in POLICIES.items()
    )
    others = "".join(f"| `{alias}` | `{name}` |\n" for alias, name in POLICIES.aliases.items())
    names = f"{ALIASES}\n| other name | policy |\n| --- | --- |\n{others}"
    return f"{INTRODUCTION}\n{head}{rows}\n{PREFIX}\n{head}{aware}\n{names}\n{SETTINGS}\n{settings}"


_NAMES = {"max_num_batched_tokens": "C", "max_running": "B"}


def settings_of(row: Policy) -> list[str]:
    """The knobs that differ from the default, as `knob VALUE`."""
    default = Policy("default")
    result = []
    for field in fields(Policy):
        value = getattr(row, field.name)
        if field.name in ("name", "information", "source", "note") or value == getattr(default, field.name):
            continue
        name = _NAMES.get(field.name, field.name.replace("_", " "))
        if isinstance(value, bool):
            result.append(name if value else f"no {name}")
        elif isinstance(value, IntEnum):
            result.append(f"{name} {value.name}")
        elif isinstance(value, tuple):
            features = QUEUE_FEATURES if field.name == "queue_weights" else VICTIM_FEATURES
            result.append(f"{name.removesuffix(' weights')} key {_key(features, value)}")
        else:
            result.append(f"{name} {value:g}")
    return result


def _key(features: tuple[str, ...], weights: tuple[float, ...]) -> str:
    terms = [f"{weight:g} {name}" for name, weight in zip(features, weights, strict=True) if weight != 0.0]
    return " + ".join(term.removeprefix("1 ") for term in terms).replace("+ -", "- ")


def main(arguments: list[str] | None = None) -> int:
    """Print or write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="where to write; by default the page is printed")
    options = parser.parse_args(arguments)
    text = page()
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
        return 0
    if not options.check:
        print(text, end="")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(
        f"{PAGE.name} is out of date: run python -m experiments.facts.document_policies --out docs/policies.md",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
