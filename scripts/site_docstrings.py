"""What the API pages do to docstrings.

An "Example:" is code, adjacent brackets are no link of Markdown, and the parts of an environment's contract, such as
"Action: ...", are paragraphs with lists.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)
_BRACKETS = re.compile(r"^(?!\s*(?:>>>|\.\.\.)).*\]\[.*$", re.MULTILINE)


_PART = re.compile(r"^(Action|Observation|Reward|Episode end): (.*)$")
_ITEM = re.compile(r"^[A-Za-z_]+(?: [a-z])?(?: \([^)]*\))?: ")


def contract(docstring: str) -> str:
    """The docstring with its parts "Action", "Observation", "Reward" and "Episode end" as paragraphs and lists."""
    found, inside, in_item = list[str](), False, False
    for line in docstring.splitlines():
        part = _PART.match(line)
        if part:
            found += ["", f"**{part[1]}.** {part[2]}"]
            inside, in_item = True, False
        elif inside and line.startswith("    "):
            text, deeper = line.strip(), line.startswith("     ")
            is_item = not deeper and _ITEM.match(text) is not None
            if is_item != in_item and not deeper:
                found.append("")
            found.append(f"- {text}" if is_item else f"  {text}" if in_item and deeper else text)
            in_item = is_item or (in_item and deeper)
        else:
            inside = False
            found.append(line)
    return "\n".join(found)


def readable(docstring: str) -> str:
    """The docstring as the API pages show it."""
    docstring = contract(docstring)
    return _BRACKETS.sub(lambda line: line.group().replace("][", "]\\["), _EXAMPLE.sub(r"\1Examples:", docstring))


class Docstrings(griffe.Extension):
    """Griffe calls it for each object it finds."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring, if there is one."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
