"""Opening a trace file: encoding, and the faults that can be told from its first bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from infermax_gym.workload.workload import WorkloadError

_MAGIC = {
    b"\x1f\x8b": "is compressed with gzip; decompress it first",
    b"PK\x03\x04": "is a zip archive; extract it first",
    b"PAR1": "is a Parquet file; convert it to CSV first",
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard; decompress it first",
    b"BZh": "is compressed with bzip2; decompress it first",
    b"\xfd7zXZ": "is compressed with xz; decompress it first",
    b"\xff\xfe": "is text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16; save it as UTF-8",
}


@contextmanager
def open_trace(path: str | Path) -> Iterator[TextIO]:
    """A trace as text: UTF-8 with or without a byte order mark, line ends left as they are.

    Bytes that are not UTF-8 come out as backslash escapes, so the cell that holds them is reported with its line.

    Raises:
        WorkloadError: the file is missing, is a directory, cannot be read, is empty or is not text.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115 (closed below; its own errors need their own messages)
    except FileNotFoundError:
        raise WorkloadError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WorkloadError(f"{path}: is a directory; expected a trace file") from None
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise WorkloadError(f"{str(path)!r}: not a usable path ({error})") from None
    with raw:
        _refuse_binary(raw.peek(), path)
        try:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="backslashreplace", newline="")
        except OSError as error:
            raise WorkloadError(f"{path}: cannot be read ({error.strerror or error})") from None


def _refuse_binary(head: bytes, path: str | Path) -> None:
    if not head:
        raise WorkloadError(f"{path}: the file is empty")
    for magic, message in _MAGIC.items():
        if head.startswith(magic):
            raise WorkloadError(f"{path}: {message}")
    if b"\0" in head:
        raise WorkloadError(f"{path}: is a binary file; expected CSV or JSONL text")
