"""The documentation site: it builds without a warning, asks the network for nothing, and opens from disk."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.test_architecture import ROOT

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?https?:[^>]*>|<link[^>]*\shref=\"?https?:[^>]*>")


def loaded(name: str) -> Any:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert not {page.name: found for page in pages if (found := LOADED.findall(page.read_text(encoding="utf-8")))}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import )[\"']?https?:[^)\"']*", styles)


def test_the_api_is_there(site: Path) -> None:
    page = (site / "api" / "engine.html").read_text(encoding="utf-8")
    assert 'id="infermax_gym.engine.simulate"' in page
    assert "gt;&gt;&gt;" not in re.sub(r"<(?:pre|code).*?</(?:pre|code)>", "", page, flags=re.DOTALL), "code as text"


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.parametrize("name", ["index", "concepts/preemption", "examples/my_first_agent", "api/engine"])
def test_pages_open_from_disk_without_an_error(site: Path, name: str, tmp_path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=3000"]
    # No host has an address, so whatever a page asks for elsewhere fails, and is logged.
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}"]
    address = (site / f"{name}.html").as_uri()
    done = subprocess.run([CHROMIUM, *options, "--dump-dom", address], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "md-content" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_links_that_leave_the_pages_become_text() -> None:
    hooks = loaded("site_hooks")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guides/x.md"))
    text = "[a](../engine.md) [b](../../CONTRIBUTING.md) ![c](../pictures/c.png)"
    assert hooks.on_page_markdown(text, page) == "[a](../engine.md) b ![c](../pictures/c.png)"


def test_pages_that_nobody_listed_come_last(tmp_path: Path) -> None:
    for name in ("index.md", "new.md", "guides/a.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = {"docs_dir": str(tmp_path), "nav": [{"Home": "index.md"}, {"Guides": ["guides/a.md"]}]}
    assert loaded("site_hooks").on_config(config)["nav"][-1] == {"More": ["new.md"]}


def test_docstrings_are_readable() -> None:
    pytest.importorskip("griffe", reason="needs the extra docs")
    readable = loaded("site_docstrings").readable
    assert readable("Sum.\n\n    Example:\n        >>> a[0][1]\n") == "Sum.\n\n    Examples:\n        >>> a[0][1]"
    assert readable("terms[t][f] are nine") == "terms[t]\\[f] are nine"


def test_contracts_become_paragraphs_and_lists() -> None:
    pytest.importorskip("griffe", reason="needs the extra docs")
    text = "Decide.\n\nAction: Discrete. Kinds:\n    RUN l (tokens): runs,\n        and so on.\n    No more.\n\nArgs:\n"
    shown = "Decide.\n\n\n**Action.** Discrete. Kinds:\n\n- RUN l (tokens): runs,\n  and so on.\n\nNo more.\n\nArgs:"
    assert loaded("site_docstrings").contract(text) == shown


def test_notebooks_become_pages() -> None:
    notebooks = loaded("site_notebooks")
    assert set(notebooks.ORDER) == {path.stem for path in notebooks.NOTEBOOKS.glob("*.ipynb")}
    picture = {"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": "A curve"}}
    printed = {"output_type": "stream", "name": "stdout", "text": "3\n"}
    cells = [
        {"cell_type": "markdown", "source": "# T\n\n[a](../../docs/engine.md), [b](other.ipynb)"},
        {"cell_type": "code", "source": "print(3)", "outputs": [printed]},
        {"cell_type": "code", "source": "draw()", "outputs": [picture]},
    ]
    text, pictures = notebooks.page_of("one", {"cells": cells})
    assert pictures == {"one_0.png": b"hi"}
    assert "[a](../engine.md), [b](other.md)" in text
    assert "```python\nprint(3)\n```\n\n``` { .text .no-copy .printed }\n3\n```" in text
    assert '![A curve](one_0.png)\n\n??? abstract "Code of the picture"\n\n    ```python\n    draw()\n    ```' in text
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guides/x.md"))
    link = "[n](../../examples/notebooks/one.ipynb)"
    assert notebooks.on_page_markdown(link, page) == "[n](../examples/one.md)"
