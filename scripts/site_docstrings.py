"""What the API pages do to docstrings: an "Example:" is code, and adjacent brackets are no link of Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)
_BRACKETS = re.compile(r"^(?!\s*(?:>>>|\.\.\.)).*\]\[.*$", re.MULTILINE)


def readable(docstring: str) -> str:
    """The docstring as the API pages show it."""
    return _BRACKETS.sub(lambda line: line.group().replace("][", "]\\["), _EXAMPLE.sub(r"\1Examples:", docstring))


class Docstrings(griffe.Extension):
    """Griffe calls it for each object it finds."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring, if there is one."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
