"""The project speaks the field's words: those that it used before stay where they are explained, and nowhere else."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.pages import name_of, pages
from tests.test_architecture import ROOT, tracked

WHERE = ("infermax_gym", "agents", "baselines", "experiments", "docs", "examples", "benchmarks", "train.py")
WHERE += ("README.md", "CONTRIBUTING.md")
EXPLAINED = {"docs/glossary.md"}
"""Pages that say what something was called."""

FORMER_TABLES = {"agents/serialization.py": re.compile(r"^FORMERLY\b.*?^[)}\]]", re.DOTALL | re.MULTILINE)}
"""Files that read what older versions wrote, and the part of them that holds the old words."""

# What must not be there, and what it is called now.
PROSE = {
    r"newcomers?": "waiting request",
    r"takeovers?": "base-policy rollout",
    r"push(?:es|ed|ing)? out": "preempt",
    r"g(?:ive|ives|iven|iving|ave) up": "shed, deadline missed",
    r"believ\w+": "length estimate, predicted lengths",
    r"at home": "in-distribution",
    r"guests?": "warm starts",
    r"(?:a|the|each|every|one|another|no|which|this) rows? of the table|rows? of the table|rows over rows": "policy",
    r"row-teachers?|rows? as (?:an? )?(?:teacher|agent)s?": "policy",
    r"the house|house rules?": "project layout",
    r"nursery|pupils?|schools?": "recipe, candidate, search",
}
NAMES = {
    r"seats|num_seats|\w+_seats": "max_num_seqs",
    r"(?:\w+_)?newcomers?(?:_\w+)?": "waiting request",
    r"(?:\w+_)?takeovers?(?:_\w+)?": "base-policy rollout",
    r"push_out|pushed_out|\w+_pushed_out": "preempt",
    r"give_up\w*|given_up\w*|gave_up\w*": "shed, deadline missed",
    r"(?:\w+_)?believe[sd]?(?:_\w+)?|told_to|_told_to|_told": "predicted lengths",
    r"at_home": "in-distribution",
    r"in_charge": "active expert",
    r"\w*(?:School|Pupil|Nursery)\w*|(?:\w+_)?(?:school|pupil|nursery|guest)s?(?:_\w+)?": "recipe, candidate, search",
    r"happened": "reward_components",
    r"PAUSED": "LOG_FULL",
    r"num_levels": "num_chunk_budgets, mlfq_levels",
    r"RowTeacher\w*|row_teacher\w*|FCFS_ROW|BASE_ROW": "policy",
}
_PROSE = {re.compile(rf"\b(?:{old})\b", re.IGNORECASE): now for old, now in PROSE.items()}
_NAMES = {re.compile(rf"(?:{old})"): now for old, now in NAMES.items()}
# What pages must not say besides, since the glossary has a word for it.
PAGES_ONLY = {
    r"engine steps?|scheduling steps?|scheduler steps?": "iteration",
    r"token limit": "token budget",
    r"kick(?:s|ed|ing)? out|bump(?:s|ed|ing)?": "preempt",
    r"time[- ]between[- ]tokens|TBT": "ITL",
    r"concurrency limit|batch size limit": "max_num_seqs",
}
# Acronyms that need no glossary: those of computing at large, and names.
KNOWN = {
    "API",
    "CPU",
    "CSV",
    "CUDA",
    "GPU",
    "JSON",
    "LLM",
    "RFC",
    "RTX",
    "HTML",
    "PNG",
    "SVG",
    "README",
    "CONTRIBUTING",
}
KNOWN |= {"INFERMAX", "ADMIT", "PREEMPT", "RUN", "PRIORITY", "WAIT", "MODEL", "DEVICE", "PRO", "URL", "YAML", "SHA"}
_PAGES_ONLY = {re.compile(rf"\b(?:{old})\b"): now for old, now in PAGES_ONLY.items()}
_ENGINE_NOW = re.compile(r"\b(?:engine|run\.engine|self\.engine|_engine)\.now\b")


def files() -> list[Path]:
    kept = (path for path in tracked(*WHERE) if path.suffix in (".py", ".md"))
    return [path for path in kept if path.relative_to(ROOT).as_posix() not in EXPLAINED]


def text_of(path: Path) -> str:
    """The file, with what explains former words made blank, line by line."""
    text = path.read_text(encoding="utf-8")
    table = FORMER_TABLES.get(path.relative_to(ROOT).as_posix())
    return text if table is None else table.sub(lambda found: "\n" * found.group().count("\n"), text)


def hits_in(text: str, is_python: bool) -> list[str]:
    """`line: word (now)`, for every former word."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, now in _PROSE.items():
            found += [f"{number}: {match!r} is {now}" for match in pattern.findall(line)]
        if _ENGINE_NOW.search(line):
            found.append(f"{number}: 'engine.now' is engine.core")
    if is_python:
        names = (t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.NAME)
        for token in names:
            found += [
                f"{token.start[0]}: {token.string!r} is {now}"
                for pattern, now in _NAMES.items()
                if pattern.fullmatch(token.string)
            ]
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_former_words_are_gone(path: Path) -> None:
    found = hits_in(text_of(path), path.suffix == ".py")
    assert not found, "\n".join(f"{path.relative_to(ROOT)}:{hit}" for hit in found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("A newcomer waits.", 1),
        ("Victims are pushed out, and it gives up.", 2),
        ("what a row of the table knows", 1),
        ("a row per request", 0),
        ("x = engine.now", 1),
        ("happened = 1", 1),
        ("# it happened once", 0),
        ("class RowTeacher: pass", 1),
        ("num_levels = RowTeacher()", 2),
        ("max_num_seqs = mlfq_levels", 0),
    ],
)
def test_the_search_finds_them(text: str, count: int) -> None:
    assert len(hits_in(text, is_python=not text.startswith(("A ", "Victims", "what", "a row")))) == count


def prose_of(text: str) -> str:
    """A page without code and without the targets of links."""
    return re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_pages_use_the_words_of_the_glossary(path: Path) -> None:
    prose = prose_of(path.read_text(encoding="utf-8"))
    found = [f"{match!r} is {now}" for pattern, now in _PAGES_ONLY.items() for match in pattern.findall(prose)]
    assert not found, "\n".join(found)


def test_the_glossary_explains_the_acronyms_of_the_pages() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    where: dict[str, set[str]] = {}
    for path in pages():
        for acronym in re.findall(r"\b[A-Z]{3,}\b", prose_of(path.read_text(encoding="utf-8"))):
            where.setdefault(acronym, set()).add(name_of(path))
    unexplained = {acronym for acronym, names in where.items() if len(names) >= 3 and acronym not in glossary}
    assert unexplained <= KNOWN, f"docs/glossary.md lacks {sorted(unexplained - KNOWN)}"


def test_the_glossary_has_a_meaning_for_each_word() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in glossary.splitlines() if line.startswith("| ")]
    words = [row[0].strip() for row in rows if row[0].strip() != "word"]
    assert len(words) > 70
    assert len(words) == len(set(words))
    assert all(len(row) == 3 and row[1].strip() for row in rows)
