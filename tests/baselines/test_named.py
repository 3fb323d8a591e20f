"""Tables with further names."""

from __future__ import annotations

import pytest

from infermax_gym.baselines.named import Named


def test_aliases_are_looked_up_and_not_listed() -> None:
    table = Named({"new": 1, "other": 2}, {"old": "new", "older": "new"})
    assert (table["new"], table["old"], table["older"], table["other"]) == (1, 1, 1, 2)
    assert "old" in table
    assert "oldest" not in table
    assert table.get("oldest") is None
    assert list(table) == ["new", "other"]
    assert len(table) == 2
    assert {**table} == {"new": 1, "other": 2}
    assert table.aliases_of("new") == ["old", "older"]
    assert table.aliases_of("other") == []


@pytest.mark.parametrize("aliases", [{"new": "other"}, {"old": "nobody"}])
def test_an_alias_is_new_and_stands_for_something(aliases: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be no name of the table"):
        Named({"new": 1, "other": 2}, aliases)
