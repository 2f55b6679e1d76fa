"""Bytes in pieces are as good as bytes in one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.oci.digest import Hasher
from cacheproxy.storage.files import CREATE
from cacheproxy.storage.pieces import Pieces

_PIECES = st.lists(st.binary(max_size=5), max_size=40)


@given(_PIECES)
def test_pieces_are_the_bytes_that_came(pieces: list[bytes]) -> None:
    together = b"".join(pieces)
    found = Pieces(pieces)
    hasher = Hasher("sha256")
    found.hash(hasher)
    assert (bytes(found), found.size) == (together, len(together))
    assert hasher.digest() == f"sha256:{hashlib.sha256(together).hexdigest()}"


@given(_PIECES, st.integers(0, 100), st.integers(0, 100))
def test_a_part_is_a_part_of_the_bytes(pieces: list[bytes], start: int, end: int) -> None:
    assert bytes(Pieces(pieces).part(start, end)) == b"".join(pieces)[start:end]


@pytest.mark.parametrize("at_once", [0, 1, 4, 5, 9, 100])
def test_all_is_written_however_little_the_system_takes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    def pwritev(fd: int, pieces: list[bytes], offset: int) -> int:
        return os.pwrite(fd, b"".join(pieces)[:at_once], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    fd = os.open(tmp_path / "file", CREATE)
    try:
        Pieces([b"some", b"pieces"]).write_at(fd, 2)
        assert os.pread(fd, 100, 0) == b"\0\0somepieces"
    finally:
        os.close(fd)
