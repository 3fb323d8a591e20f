"""Bad input, as one line for the person who typed it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What was typed cannot be used; the message is one line that says what would be right."""


class Interrupted(Exception):  # noqa: N818 - not an error: what had finished has been kept
    """Ctrl-C came while a command ran, after it kept what had finished; the message says what that was."""


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
