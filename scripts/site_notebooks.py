"""Pages of the documentation site from examples/notebooks: Markdown and pictures, made while the site is built.

A notebook's links lead to docs/ and to other notebooks in the repository; here they lead to pages. Pages under docs/
link to notebooks likewise, and those links too become links to pages.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from textwrap import indent
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

Each of these pages is a notebook, made by running it. The notebooks are in the repository, in `examples/notebooks`.
Jupyter (`pip install jupyterlab`) opens them, and every cell runs as it stands.

"""


def page_of(name: str, notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(_with_page_links(cell["source"]))
            continue
        code = f"```python\n{cell['source']}\n```"
        drawn = {f"{name}_{len(pictures) + k}.png": data for k, data in enumerate(_pictures_of(cell))}
        pictures |= {file: base64.b64decode(data["image/png"]) for file, data in drawn.items()}
        shown = [f"![{data['text/plain']}]({file})" for file, data in drawn.items()]
        printed = [output["text"].rstrip() for output in cell["outputs"] if output["output_type"] == "stream"]
        if shown and not printed:  # how a picture is drawn interests few readers
            parts += [*shown, '??? abstract "Code of the picture"\n\n' + indent(code, "    ")]
        else:
            parts += [code, *(f"``` {{ .text .no-copy .printed }}\n{text}\n```" for text in printed), *shown]
    parts.append(f"*This page is a notebook, `examples/notebooks/{name}.ipynb`.*")
    return "\n\n".join(parts) + "\n", pictures


def _pictures_of(cell: dict[str, Any]) -> list[dict[str, str]]:
    return [output["data"] for output in cell["outputs"] if output["output_type"] == "display_data"]


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
