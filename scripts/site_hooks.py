"""What `mkdocs build` does to a page beside rendering it: links to files outside docs/ become plain text.

Pages are read in the repository too, where such links work. The site has no copy of those files.
"""

from __future__ import annotations

import re


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """The page's text without links that leave docs/."""
    depth = page.file.src_uri.count("/")  # type: ignore[attr-defined]
    leaves = re.compile(rf"(?<!!)\[([^\]]+)\]\((?:\.\./){{{depth + 1}}}[^)]*\)")
    return leaves.sub(r"\1", markdown)
