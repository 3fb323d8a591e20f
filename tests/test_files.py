"""Files appear whole or not at all, links are not written through, and reading stops at a limit."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest

from infermax_gym import files


def test_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    files.write_bytes(path, b"old")
    with pytest.raises(RuntimeError), files.atomic_text(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with files.atomic_text(path) as file:
        file.write("line\r\nnext\n")
    assert path.read_bytes() == b"line\r\nnext\n"
    assert [one.name for one in tmp_path.iterdir()] == ["result.json"]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "summary.json"
    precious.write_text("keep")
    link.symlink_to(precious)
    files.write_bytes(link, b"new")
    assert precious.read_text() == "keep" and link.read_bytes() == b"new" and not link.is_symlink()
    with pytest.raises(OSError, match="folder"):
        files.write_bytes(tmp_path, b"")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * 1000)
    assert len(files.read_bytes(path, 1000)) == 1000
    with pytest.raises(OSError, match="too large"):
        files.read_bytes(path, 999)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"0" * (64 << 20)))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(OSError, match="the limit is 1 MiB"):
        files.read_text(path, 1 << 20)
    path.write_bytes(gzip.compress(b"text")[:-3])
    with pytest.raises(OSError, match="damaged"):
        files.read_text(path)
