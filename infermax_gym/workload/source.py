"""Opening a trace file: encoding, and the faults that can be told from its first bytes."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from infermax_gym.files import MAX_DOCUMENT_BYTES
from infermax_gym.workload.workload import WorkloadError

MAX_TRACE_BYTES = 1 << 34
"""Of a trace's text, after decompression: more than a hundred million requests."""

MAX_LINE_CHARS = 1 << 24
"""Of one line; a Mooncake request of a million tokens has some 20,000."""

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
def open_trace(path: str | Path, content: bytes | None = None) -> Iterator[Iterator[str]]:
    """The lines of a trace: UTF-8 with or without a byte order mark, line ends left as they are; gzip is taken off.

    Bytes that are not UTF-8 come out as backslash escapes, so the cell that holds them is reported with its line.

    Args:
        path: of the file.
        content: what `kept_content` read from it.

    Raises:
        WorkloadError: the file is missing, is a directory, cannot be read, is empty or is not text; while it is read,
            a line or the whole is beyond `MAX_LINE_CHARS` or `MAX_TRACE_BYTES`.
    """
    with _opened(path) if content is None else io.BufferedReader(io.BytesIO(content)) as raw:  # type: ignore[arg-type]
        try:
            binary: io.BufferedReader[Any] = raw
            if raw.peek(2).startswith(_GZIP):
                binary = io.BufferedReader(gzip.GzipFile(fileobj=raw))  # type: ignore[arg-type]
            _refuse_binary(binary.peek(), path)
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="backslashreplace", newline="")
            yield _lines(text, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise WorkloadError(f"{path}: its gzip data is damaged ({error}); compress it again") from None
        except OSError as error:
            raise WorkloadError(f"{path}: cannot be read ({error.strerror or error})") from None


def _lines(text: TextIO, path: str | Path) -> Iterator[str]:
    """Lines with their ends, none longer and no more in all than the limits: a small gzip file may hold anything."""
    left = MAX_TRACE_BYTES
    number = 0
    while line := text.readline(MAX_LINE_CHARS):
        number += 1
        left -= len(line)
        if len(line) == MAX_LINE_CHARS:
            raise WorkloadError(f"{path}:{number}: line is longer than {MAX_LINE_CHARS:,} characters; is it a trace?")
        if left < 0:
            raise WorkloadError(f"{path}: holds more than {MAX_TRACE_BYTES >> 30} GiB of text; split it")
        yield line


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
        content = raw.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise WorkloadError(f"{path}: a pipe may hold {MAX_DOCUMENT_BYTES >> 20} MiB; write it to a file first")
    return content


def whole(text: Iterable[str], path: object) -> str:
    """The text of a document, which has to be read as a whole; WorkloadError beyond `MAX_DOCUMENT_BYTES`."""
    lines, left = [], MAX_DOCUMENT_BYTES
    for line in text:
        left -= len(line)
        if left < 0:
            most = f"{MAX_DOCUMENT_BYTES >> 20} MiB"
            raise WorkloadError(f"{path}: is a JSON document of more than {most}; write one object a line (JSONL)")
        lines.append(line)
    return "".join(lines)


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
