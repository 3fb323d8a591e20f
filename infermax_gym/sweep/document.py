"""A configuration as YAML or JSON, of what can be told apart from code and from a bomb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infermax_gym import files
from infermax_gym.sweep.store import StoreError

_MOST_BYTES = 1 << 20


def read_document(path: Path) -> dict[str, Any]:
    """The mapping that a file holds: JSON if its name ends so, YAML otherwise.

    YAML is read without tags of its own and without aliases, by which a page could stand for more than a machine holds.

    Raises:
        StoreError: it cannot be read, or holds something else.
    """
    try:
        text = files.read_text(path, _MOST_BYTES)
        document = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read as a configuration ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise StoreError(f"{path}: expected entries by name, such as policies and workloads; docs/sweep.md shows one")
    return document


def _yaml(text: str) -> Any:
    import yaml

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        """YAML without aliases."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise ValueError("aliases (*name) are not read; write it out")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Loader=Plain)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
