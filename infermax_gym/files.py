"""Files: written whole or not at all, read no further than a limit.

Everything here fails with an OSError whose `strerror` says what is wrong, in words that go into the caller's one line.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

MAX_DOCUMENT_BYTES = 1 << 28
"""Of a file that is read as a whole: JSON, cards, profiles; after decompression."""

MAX_CHECKPOINT_BYTES = 1 << 30
"""Of trained weights and of checkpoints."""

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def atomic(path: str | Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that takes its place only once it is complete and on the disk.

    Whatever is at `path` is replaced, never written through: a link is not followed. The file gets the permissions
    that the umask leaves.

    Args:
        path: of the file; its folder exists.
        durable: wait for the disk, so that it is complete after a power cut, too; a kill needs no wait.

    Raises:
        OSError: it cannot be written; what was there before is still there, and nothing else.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_text(path: str | Path) -> Iterator[TextIO]:
    """`atomic` for UTF-8 text, line ends left as they are written."""
    with atomic(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.flush()
        text.detach()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Put `data` into a file that takes its place only once it is complete; OSError as in `atomic`."""
    with atomic(path) as file:
        file.write(data)


def read_bytes(path: str | Path, most: int = MAX_DOCUMENT_BYTES) -> bytes:
    """The contents of a file, of at most so many bytes; of a pipe as well.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    with open(path, "rb") as file:
        return _limited(file, most)


def read_text(path: str | Path, most: int = MAX_DOCUMENT_BYTES) -> str:
    """The text of a UTF-8 file of at most so many bytes, gzip taken off, with or without a byte order mark.

    Raises:
        OSError: it cannot be read, is larger, or is damaged gzip.
        UnicodeDecodeError: it is no UTF-8.
    """
    data = read_bytes(path, most)
    if str(path).endswith(".gz") and not data.startswith(_GZIP):
        raise OSError(errno.EINVAL, "is not compressed by gzip, as its name says")
    return (gunzip(data, most) if data.startswith(_GZIP) else data).decode("utf-8-sig")


def gunzip(data: bytes, most: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Decompress gzip to at most so many bytes.

    Raises:
        OSError: there is more in it, or it is damaged.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return _limited(file, most)
    except (EOFError, zlib.error) as error:
        raise OSError(errno.EINVAL, f"its gzip data is damaged: {error}") from None


class LockedError(OSError):
    """Somebody else is at work in a folder; one line that says what to do."""


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Be the only run in a folder; the lock goes with the process, however that ends, and leaves no file.

    Where a system or a network file system has no such lock, nothing is locked.

    Raises:
        LockedError: another process holds it.
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{folder}: another run is at work in this folder; wait for it or take another") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def too_large(what: str, most: str) -> OSError:
    """The error for a file beyond a limit."""
    return OSError(errno.EFBIG, f"{what}; the limit is {most}")


def _limited(file: Any, most: int) -> bytes:
    parts, left = [], most + 1
    while left and (part := file.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise too_large("is too large", f"{most >> 20} MiB")
    return b"".join(parts)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
