"""What stands in the documentation's pages: fenced blocks, where they begin, and why one is not run; and sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.test_architecture import ROOT, tracked

_FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_FILE = re.compile(r"into `([\w.-]+)`:\s*$")
_COMMAND = re.compile(r"(?:infermax|python3?|make|pip|vllm|[\w./]+/python|[\w./]+/pip|git|docker) ")
SHELL = ("console", "bash", "sh", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block: `language` is console for commands, also where the page does not say so.

    `file` is where the sentence before says to put it; `reason` is why it is not run, empty where it is.
    """

    line: int
    language: str
    text: str
    file: str
    reason: str


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and everything in docs/."""
    return [path for path in tracked("README.md", "CONTRIBUTING.md", "docs") if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, from top to bottom."""
    found = []
    for match in _FENCE.finditer(text):
        body = "\n".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines()) + "\n"
        language = match["language"]
        if language in SHELL or (not language and _COMMAND.match(body)):
            language = "console"
        file = _FILE.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, language, body, file[1] if file else "", match["reason"] or ""))
    return found


def commands_of(block: Block) -> list[str]:
    """The commands of a console block, those over several lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _paragraphs(text: str) -> list[str]:
    """Paragraphs and list items, without code, tables, headings and pictures."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^( *)```.*?^\1```$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    found, lines = [], list[str]()
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        item = re.match(r"(?:[-*+]|\d+\.)\s+", bare)
        if item or not bare or bare.startswith(("|", "#", "![", "<", ":::", "---", "??? ", "!!! ")):
            found += [" ".join(lines)] if lines else []
            lines = []
        if item:
            bare = bare[item.end() :]
        if bare and not bare.startswith(("|", "#", "![", "<", ":::", "---", "??? ", "!!! ")):
            lines.append(bare)
    return found


def sentence_lengths(text: str) -> list[int]:
    """Words of each sentence of a page; a piece of code counts as one."""
    lengths = []
    for paragraph in _paragraphs(text):
        plain = re.sub(r"`[^`]*`", "Code", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph))
        for sentence in re.split(r"(?<=[.!?])[)\"*_]*\s+(?=[A-Z*(\"])|:\s*$", plain):
            num_words = sum(bool(re.search(r"\w", word)) for word in sentence.split())
            lengths += [num_words] if num_words else []
    return lengths
