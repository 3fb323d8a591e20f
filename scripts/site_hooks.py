"""What `mkdocs build` does beside rendering pages.

Links to files outside docs/ become plain text: pages are read in the repository too, where such links work. The site
has no copy of those files. Pages that mkdocs.yml does not list come last, under "More". Intervals in tables stay on one
line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def _listed(nav: Any) -> set[str]:
    """The pages of a nav, whatever its depth."""
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return {page for part in parts for page in _listed(part)}


def on_config(config: Any) -> Any:
    """Put pages that nobody listed at the end."""
    folder = Path(config["docs_dir"])
    pages = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}
    if others := sorted(pages - _listed(config["nav"])):
        config["nav"].append({"More": others})
    return config


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """The page's text without links that leave docs/, its intervals in one piece."""
    depth = page.file.src_uri.count("/")  # type: ignore[attr-defined]
    leaves = re.compile(rf"(?<!!)\[([^\]]+)\]\((?:\.\./){{{depth + 1}}}[^)]*\)")
    return _INTERVAL.sub(_unbroken, leaves.sub(r"\1", markdown))


# [0.825, 0.922] in a line of a table: no line shall break inside it.
_INTERVAL = re.compile(r"^\|.*\[-?[\d.]+, -?[\d.]+\].*$", re.MULTILINE)


def _unbroken(line: re.Match[str]) -> str:
    return re.sub(r"(\[-?[\d.]+,) (-?[\d.]+\])", "\\1\N{NO-BREAK SPACE}\\2", line[0])
