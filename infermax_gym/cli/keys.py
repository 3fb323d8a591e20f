"""Keys of a terminal, as they are pressed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RIGHT = "\x1b[C"


@contextmanager
def pressed() -> Iterator[Callable[[], str]]:
    """A function that returns the key pressed since it was last asked, or "" if there was none; it never waits."""
    if sys.platform == "win32":
        yield _of_windows
        return
    import os
    import select
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def next_key() -> str:
        return os.read(file, 8).decode(errors="ignore") if select.select([file], [], [], 0.0)[0] else ""

    tty.setcbreak(file)
    try:
        yield next_key
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def _of_windows() -> str:
    import msvcrt

    if not msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
        return ""
    key: str = msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]
    if key in ("\x00", "\xe0"):  # a second one says which arrow
        return RIGHT if msvcrt.getwch() == "M" else ""  # type: ignore[attr-defined,unused-ignore]
    return key
