"""Bad input, as one line for the person who typed it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What was typed cannot be used; the message is one line that says what would be right."""


class Interrupted(Exception):  # noqa: N818 - not an error: what had finished has been kept
    """Ctrl-C came while a command ran, after it kept what had finished; the message says what that was."""


_EXTRA_OF = {
    "torch": "agents",
    "stable_baselines3": "agents",
    "sb3_contrib": "agents",
    "safetensors": "agents",
    "cma": "agents",
    "tensorboard": "agents",
    "tqdm": "agents",
    "ortools": "optimum",
    "matplotlib": "viewer",
    "scipy": "fit",
    "minari": "data",
    "h5py": "data",
    "pyarrow": "sweep",
    "yaml": "sweep",
    "ray": "ray",
}
"""Packages that only some commands need, and the extra that installs them."""


def missing_extra(error: ModuleNotFoundError) -> InputError | None:
    """The error for a package that is not installed, with the extra that has it; None where no extra does."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRA_OF:
        return None
    return InputError(f"this needs {package}, which is not installed: pip install 'infermax-gym[{_EXTRA_OF[package]}]'")


def unknown(kind: str, name: str, known: Iterable[str], hint: str) -> InputError:
    """The error for a name that nothing has, with the closest one that exists.

    Args:
        kind: what was looked for, such as "policy".
        name: what was typed.
        known: the names that exist.
        hint: where to see them all, such as "infermax list policies".
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    closest = f"; did you mean {close[0]!r}?" if close else ";"
    return InputError(f"unknown {kind} {name!r}{closest} `{hint}` shows all")
