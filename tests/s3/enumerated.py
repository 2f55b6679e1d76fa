"""The flows of clients: what they do, what was there before, and what is there after it.

Each takes a seed, by which it has blobs, manifests and tags of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.api.wire import digest
from tests.s3.calls import Kind
from tests.s3.flows import (
    Client,
    begin,
    delete,
    get,
    image,
    listed,
    look,
    noise,
    patch,
    pull,
    push,
    put,
    tag,
    told,
)
from tests.storage.s3_buckets import PART

_Act = Callable[[Client, int], Awaitable[None]]

_STREAMED = 200_000  # more bytes than are answered in one piece


@dataclass(frozen=True)
class Flow:
    """`run` is what the client does after `prepare`, and makes `check` succeed."""

    run: _Act
    check: _Act
    prepare: _Act | None = None
    everywhere: bool = True
    """Whether that is so at every replica at once."""
    only: Kind | None = None
    """The only kind of key whose calls go wrong; the others are those of another flow."""


def _blob(seed: int, size: int = 3000) -> bytes:
    return noise(size, b"%d" % seed)


def _pushing(size: int) -> _Act:
    return lambda client, seed: push(client, _blob(seed, size))


def _pulling(size: int, rest: bytes = b"") -> _Act:
    return lambda client, seed: pull(client, _blob(seed, size) + rest)


def _pushing_chunks(first: int) -> _Act:
    async def act(client: Client, seed: int) -> None:
        chunk = _blob(seed, first)
        location = await begin(client)
        location = await patch(client, location, chunk)
        location = await patch(client, location, b"second")
        await put(client, location, chunk + b"second" + b"last", b"last")

    return act


def _image(seed: int) -> bytes:
    return image(_blob(seed), number=seed)


async def _push_image(client: Client, seed: int) -> None:
    await push(client, _blob(seed))
    await tag(client, f"tag-{seed}", _image(seed))


async def _pull_image(client: Client, seed: int) -> None:
    assert await get(client, f"tag-{seed}") == _image(seed)
    await pull(client, _blob(seed))


async def _pull_and_look(client: Client, seed: int) -> None:
    await pull(client, _blob(seed, _STREAMED))
    assert await look(client, _blob(seed, _STREAMED))


async def _pull_range(client: Client, seed: int) -> None:
    content = _blob(seed, _STREAMED)
    path = f"/v2/ci/app/blobs/{digest(content)}"
    async with client.get(path, headers={"Range": "bytes=-1000"}) as answer:
        assert await told(answer, 206) == content[-1000:]


async def _delete_blob(client: Client, seed: int) -> None:
    await delete(client, f"blobs/{digest(_blob(seed))}")


async def _no_blob(client: Client, seed: int) -> None:
    assert not await look(client, _blob(seed))


async def _delete_manifest(client: Client, seed: int) -> None:
    await delete(client, f"manifests/{digest(_image(seed))}")


async def _no_manifest(client: Client, seed: int) -> None:
    assert await get(client, f"tag-{seed}") is None
    assert await get(client, digest(_image(seed))) is None


async def _list(client: Client, seed: int) -> None:
    assert await listed(client, "/v2/_catalog", "repositories") == ["ci/app"]
    assert f"tag-{seed}" in await listed(client, "/v2/ci/app/tags/list", "tags")


FLOWS = {
    "push": Flow(_pushing(3000), _pulling(3000)),
    "push-large": Flow(_pushing(PART + 1), _pulling(PART + 1)),
    "push-chunks": Flow(_pushing_chunks(3000), _pulling(3000, b"secondlast")),
    "push-large-chunk": Flow(
        _pushing_chunks(PART + 1), _pulling(PART + 1, b"secondlast"), only="blob"
    ),
    "push-image": Flow(_push_image, _pull_image),
    "pull-image": Flow(_pull_image, _pull_image, _push_image),
    "pull-streamed": Flow(_pull_and_look, _pull_and_look, _pushing(_STREAMED)),
    "pull-range": Flow(_pull_range, _pull_and_look, _pushing(_STREAMED)),
    "delete-blob": Flow(_delete_blob, _no_blob, _push_image, everywhere=False),
    "delete-manifest": Flow(_delete_manifest, _no_manifest, _push_image, everywhere=False),
    "list": Flow(_list, _list, _push_image),
}
