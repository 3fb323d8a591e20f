"""Opening a trace file: encoding, and the faults that can be told from its first bytes."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from infermax_gym.workload.workload import WorkloadError

_GZIP = b"\x1f\x8b"
_MAGIC = {
    b"PK\x03\x04": "is a zip archive; extract it first",
    b"PAR1": "is a Parquet file; convert it to CSV first",
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard; decompress it first",
    b"BZh": "is compressed with bzip2; decompress it first",
    b"\xfd7zXZ": "is compressed with xz; decompress it first",
    b"\xff\xfe": "is text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16; save it as UTF-8",
}


@contextmanager
def open_trace(path: str | Path, content: bytes | None = None) -> Iterator[TextIO]:
    """A trace as text: UTF-8 with or without a byte order mark, line ends left as they are; gzip is taken off.

    Bytes that are not UTF-8 come out as backslash escapes, so the cell that holds them is reported with its line.

    Args:
        path: of the file.
        content: what `kept_content` read from it.

    Raises:
        WorkloadError: the file is missing, is a directory, cannot be read, is empty or is not text.
    """
    with _opened(path) if content is None else io.BufferedReader(io.BytesIO(content)) as raw:  # type: ignore[arg-type]
        try:
            binary: io.BufferedReader[Any] = raw
            if raw.peek(2).startswith(_GZIP):
                binary = io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]
            _refuse_binary(binary.peek(), path)
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", errors="backslashreplace", newline="")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise WorkloadError(f"{path}: its gzip data is damaged ({error}); compress it again") from None
        except OSError as error:
            raise WorkloadError(f"{path}: cannot be read ({error.strerror or error})") from None


def kept_content(path: str | Path) -> bytes | None:
    """What a pipe or another source that can be read only once holds; None for files, and where there is nothing.

    Raises:
        WorkloadError: the source cannot be read.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None  # reported when it is opened
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    with _opened(path) as raw:
        return raw.read()


def stem(path: str | Path) -> str:
    """The file's name without its endings of format and compression."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def _opened(path: str | Path) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise WorkloadError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WorkloadError(f"{path}: is a directory; expected a trace file") from None
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise WorkloadError(f"{str(path)!r}: not a usable path ({error})") from None


def _refuse_binary(head: bytes, path: str | Path) -> None:
    if not head:
        raise WorkloadError(f"{path}: the file is empty")
    for magic, message in _MAGIC.items():
        if head.startswith(magic):
            raise WorkloadError(f"{path}: {message}")
    if b"\0" in head:
        raise WorkloadError(f"{path}: is a binary file; expected CSV or JSON text")
