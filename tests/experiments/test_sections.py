"""Sections of pages: put once, put again, and tables in Markdown."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from experiments.studies.sections import markdown, put, show


def test_a_section_takes_the_place_of_the_one_before() -> None:
    page = put("# Page\n", "one", "first")
    assert page == "# Page\n\n<!-- one: begin -->\nfirst\n<!-- one: end -->\n"
    longer = page + "\n## More\n"
    assert put(longer, "one", "first") == longer
    assert put(longer, "one", "second") == longer.replace("first", "second")
    assert put(longer, "two", "x").startswith(longer.rstrip())


def test_it_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    show("text", "one", page)
    show("other", "one", page)
    assert page.read_text() == put("# Validation\n", "one", "other")


def test_a_table_in_markdown() -> None:
    table = Table("name", "count")
    table.add_row("a", "1,000")
    table.add_row("b", "-")
    assert markdown(table) == "| name | count |\n|---|--:|\n| a | 1,000 |\n| b | - |"
