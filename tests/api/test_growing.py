"""Blobs that are sent while they come, to clients that are in no hurry."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from cacheproxy.content import window as window_module
from cacheproxy.oci.digest import Digest
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.api.wire import digest
from tests.fakes import RemoteBucket
from tests.server import serving

_SIZE = 24 << 20


@pytest.mark.parametrize("tier", ["1MiB", "1GiB"], ids=["through a window", "by a fill"])
async def test_a_slow_client_gets_what_was_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    """What the kernel has not sent yet is not taken from under it, whatever comes behind it."""
    monkeypatch.setattr(window_module, "_PIECE_BYTES", 1 << 20)
    content = hashlib.shake_128(b"seed").digest(_SIZE)
    found = digest(content)
    (tmp_path / "bucket").mkdir()
    folder = FolderBucket(str(tmp_path / "bucket"))
    await folder.put(Namespace().blob(Digest(found)), content)
    remote = RemoteBucket(folder, batch_bytes=256 << 10)
    async with (
        serving(tmp_path / "data", bucket=remote, tier__bytes=tier) as client,
        client.get(f"/v2/ci/app/blobs/{found}") as answer,
    ):
        got = b""
        while batch := await answer.content.read(1 << 20):
            got += batch
            for _ in range(20):  # let the server fill all buffers on the way
                await asyncio.sleep(0)

    assert answer.status == 200
    assert digest(got) == found
