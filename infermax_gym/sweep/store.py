"""The folder of a sweep: one Parquet file per scenario, whole or not there at all.

    DIR/sweep.json                    the configuration as it was understood
    DIR/results/part=pXX/KEY.parquet  one scenario, one line; XX are the first digits of its key
    DIR/times.jsonl                   how long scenarios took: for estimates, no result
    DIR/failures.json                 scenarios that failed, with the reason; not there if none did

No name from outside becomes part of a path. A rerun needs nothing but the results: what is there is not run again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infermax_gym import files
from infermax_gym.sweep.tasks import Outcome

_KEY = re.compile(r"[0-9a-f]{32}")
_MAGIC = b"PAR1"

SCHEMA = 1


class StoreError(ValueError):
    """The folder of a sweep cannot be used; one line that says why."""


class Store:
    """The folder of a sweep.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results = self.folder / "results"

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """Alone in the folder: half-written files of a run that was killed are removed.

        Raises:
            StoreError: another run is at work in it, or it cannot be written.
        """
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            with files.locked(self.folder):
                for path in [*self.results.glob("part=*/.*.part"), *self.folder.glob(".*.part")]:
                    path.unlink()
                yield self
        except files.LockedError as error:
            raise StoreError(str(error)) from None
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror or error})") from None

    def keys(self) -> set[str]:
        """Scenarios whose result is there and whole."""
        return {path.stem for path in self.results.glob("part=*/*.parquet") if _is_whole(path)}

    def add(self, outcome: Outcome, about: Mapping[str, Any]) -> None:
        """Keep the result of a scenario.

        Args:
            outcome: of which `value` maps figures to numbers, None where there is none.
            about: further columns: what was run.
        """
        import pyarrow
        import pyarrow.parquet

        key = outcome.task.key
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a scenario")
        line = {"scenario": key, **about, **outcome.value}
        columns = [pyarrow.array([value], _type_of(pyarrow, name, value)) for name, value in line.items()]
        table = pyarrow.table(columns, names=list(line))
        part = self.results / f"part=p{key[:2]}"
        part.mkdir(exist_ok=True)
        # `keys` sees what a power cut left, and runs it again: no need to wait for the disk each time.
        with files.atomic(part / f"{key}.parquet", durable=False) as file:
            pyarrow.parquet.write_table(table, file, compression="none", use_dictionary=False)
        seen = {"scenario": key, "wall_s": outcome.wall_s, "attempts": outcome.num_attempts}
        with open(self.folder / "times.jsonl", "a", encoding="utf-8") as times:
            times.write(json.dumps(seen) + "\n")

    def describe(self, document: Mapping[str, Any]) -> None:
        """Write the configuration beside the results."""
        text = json.dumps({"schema": SCHEMA, **document}, indent=1)
        files.write_bytes(self.folder / "sweep.json", f"{text}\n".encode())

    def write_failures(self, failures: Sequence[Mapping[str, Any]]) -> None:
        """Write which scenarios failed, or remove the file if none did."""
        path = self.folder / "failures.json"
        if failures:
            files.write_bytes(path, (json.dumps(list(failures), indent=1) + "\n").encode())
        else:
            path.unlink(missing_ok=True)

    def times(self) -> dict[str, float]:
        """Seconds that scenarios took, where that is known."""
        found: dict[str, float] = {}
        try:
            lines = files.read_text(self.folder / "times.jsonl").splitlines()
        except (OSError, UnicodeDecodeError):
            return found
        for line in lines:
            try:
                seen = json.loads(line)
                found[str(seen["scenario"])] = float(seen["wall_s"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # cut by a kill; it is only for estimates
        return found


def _is_whole(path: Path) -> bool:
    """Whether a Parquet file ends as one does; a link is none of ours."""
    if not _KEY.fullmatch(path.stem) or path.is_symlink():
        return False
    with path.open("rb") as file:
        head, size = file.read(4), path.stat().st_size
        file.seek(max(size - 4, 0))
        return size > 12 and head == _MAGIC and file.read(4) == _MAGIC


def _type_of(pyarrow: Any, name: str, value: Any) -> Any:
    """Types by name, so that a figure that a scenario lacks has the same type as in all others."""
    if isinstance(value, str):
        return pyarrow.string()
    if isinstance(value, bool):
        return pyarrow.bool_()
    return pyarrow.int64() if name.startswith("num_") or name in _WHOLE else pyarrow.float64()


_WHOLE = ("seed", "skip", "first", "kv_tokens", "block_size", "max_num_batched_tokens", "max_num_seqs", "concurrency")
