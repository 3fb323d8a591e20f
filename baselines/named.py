"""A table by name in which things may have further names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Named(Mapping[str, T]):
    """Looks up both kinds of names; iterates over, and counts, the first kind alone.

    Attributes:
        things: by name.
        aliases: name by further name; each is a name of `things`.

    Raises:
        ValueError: an alias is a name already, or stands for none.

    Example:
        >>> table = Named({"new": 1}, {"old": "new"})
        >>> table["old"], list(table), table.aliases_of("new")
        (1, ['new'], ['old'])
    """

    things: Mapping[str, T]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for alias, name in self.aliases.items():
            if alias in self.things or name not in self.things:
                raise ValueError(f"alias {alias!r} of {name!r}: the first must be no name of the table, the second one")

    def __getitem__(self, name: str) -> T:
        """By either kind of name."""
        return self.things[self.aliases.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        """First names."""
        return iter(self.things)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.things)

    def aliases_of(self, name: str) -> list[str]:
        """Further names of a thing."""
        return [alias for alias, other in self.aliases.items() if other == name]
