"""Pages of the documentation site from examples/notebooks: Markdown and pictures, made while the site is built.

A notebook's links lead to docs/ and to other notebooks in the repository; here they lead to pages. Pages under docs/ link
to notebooks likewise, and those links too become links to pages.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
ORDER = (
    "choose_a_scheduler",
    "calibrate_to_my_server",
    "your_own_policy",
    "my_first_agent",
    "preemption_with_proofs",
    "five_minute_rule",
)
_LINK = re.compile(r"\]\((?:\.\./)+examples/notebooks/(\w+)\.ipynb\)")
_INTRODUCTION = """# Examples

Each of these pages is a notebook, made by running it. In the repository they are in `examples/notebooks`; Jupyter
opens them, and every cell runs as it stands.

"""


def page_of(name: str, notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(_with_page_links(cell["source"]))
            continue
        parts.append(f"```python\n{cell['source']}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(f"``` {{ .text .no-copy .printed }}\n{output['text'].rstrip()}\n```")
            else:
                file = f"{name}_{len(pictures)}.png"
                pictures[file] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![{output['data']['text/plain']}]({file})")
    parts.append(f"*This page is a notebook, `examples/notebooks/{name}.ipynb`.*")
    return "\n\n".join(parts) + "\n", pictures


def _with_page_links(text: str) -> str:
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
    return text.replace("](../../docs/", "](../")


def index_of(pages: dict[str, tuple[str, dict[str, bytes]]]) -> str:
    """A page that shows all: title, first paragraph, first picture."""
    cards = []
    for name, (text, pictures) in pages.items():
        title, first = text.split("\n\n")[:2]
        picture = f"\n[![]({next(iter(pictures))})]({name}.md)\n" if pictures else ""
        cards.append(f"<div markdown>\n### [{title.removeprefix('# ')}]({name}.md)\n{picture}\n{first}\n</div>")
    return _INTRODUCTION + '<div class="doors wide" markdown>\n' + "\n".join(cards) + "\n</div>\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures to what is built."""
    from mkdocs.structure.files import File

    pages = {
        name: page_of(name, json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))) for name in ORDER
    }
    made: dict[str, str | bytes] = {"index.md": index_of(pages)}
    for name, (text, pictures) in pages.items():
        made |= {f"{name}.md": text, **pictures}
    for name, content in made.items():
        files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """The page's text with links to notebooks that lead to their pages."""
    up = "../" * page.file.src_uri.count("/")
    return _LINK.sub(rf"]({up}examples/\1.md)", markdown)
