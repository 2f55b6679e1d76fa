"""Cache tags against a model, through whatever may happen to one on two servers."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from cacheproxy.errors import ManifestUnknown
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.registry.registry import CacheRules
from cacheproxy.registry.sources import Window, Windows
from cacheproxy.storage.layout import Namespace
from tests.api.wire import manifest
from tests.registry.exports import APP, TAG, Export, export, import_, layer_of
from tests.registry.rooms import Bytes, Rooms

_IMAGE = manifest(annotations={"name": "image"})
_WINDOW = Window(sources=3, nanoseconds=10**18)
_EXPORTS = {
    one.digest: one
    for one in [
        export("a", "b"),
        export("a", "c"),
        export("a", "b", "d"),
        export("c", "d"),
        export("e", form="index"),
        export("f", "a"),
    ]
}
_STEPS = "abcdef"
_OPERATIONS = 40


class _History:
    """Two servers, and what should be: the sources, the latest last, and which layers are lost or
    hidden. The tag may be an image's."""

    def __init__(self, folder: Path, random: Random, *, losses: bool) -> None:
        # What is remembered for a minute may be lost within it.
        rules = CacheRules(Windows(_WINDOW), verify_seconds=0 if losses else 60)
        self._servers = [Rooms(folder, rules=rules) for _ in range(2)]
        self._random = random
        self._sources: list[Digest] = []
        self._image = False
        self._losses = [self._lose, self._hide, self._push_layer] if losses else []
        self._lost: set[str] = set(_STEPS)
        self._hidden: set[str] = set()

    @property
    def _server(self) -> Rooms:
        return self._random.choice(self._servers)

    async def go_on(self) -> None:
        """Let something happen."""
        operation = self._random.choice(
            [
                *[self._push] * 8,
                *[self.check] * 6,
                *self._losses * 2,
                *[self._delete_source, self._delete_union, self._delete_tag, self._push_image],
            ]
        )
        await operation()

    async def check(self) -> None:
        """Both servers serve what there should be, and the same."""
        for server in self._servers:
            server.now += 1
        if self._image or not self._sources:
            for server in self._servers:
                await self._check_no_cache(server)
            return
        found = [await import_(server) for server in self._servers]
        for served in found:
            assert served.hits(*_STEPS) == self._hits()
            assert served.digest == found[0].digest

    async def _check_no_cache(self, server: Rooms) -> None:
        if self._image:
            assert (await server.manifests.get(APP, TAG)).data == _IMAGE
        else:
            with pytest.raises(ManifestUnknown):
                await server.manifests.get(APP, TAG)

    def _hits(self) -> set[str]:
        found = set()
        for source in self._sources[-_WINDOW.sources :]:
            for step in _EXPORTS[source].layers:
                if step in self._lost | self._hidden:
                    break
                found.add(step)
        return found

    async def _push(self) -> None:
        one: Export = self._random.choice(list(_EXPORTS.values()))
        await one.push(self._server)
        self._lost -= one.layers.keys()
        self._hidden -= one.layers.keys()
        self._image = False
        kept = [source for source in self._sources if source != one.digest]
        self._sources = [*kept, one.digest][-_WINDOW.sources :]

    async def _push_layer(self) -> None:
        step = self._random.choice(_STEPS)
        await self._server.blobs.push(APP, digest_of(layer_of(step)), Bytes(layer_of(step)))
        self._lost.discard(step)
        self._hidden.discard(step)

    async def _lose(self) -> None:
        step = self._random.choice(_STEPS)
        await self._servers[0].folder.delete(Namespace().blob(digest_of(layer_of(step))))
        self._lost.add(step)

    async def _hide(self) -> None:
        step = self._random.choice(_STEPS)
        await self._server.hidden.add(APP, digest_of(layer_of(step)))
        self._hidden.add(step)
        for server in self._servers:
            await server.hidden.poll()

    async def _delete_source(self) -> None:
        if self._sources:
            source = self._random.choice(self._sources)
            await self._server.manifests.delete(APP, source)
            self._sources.remove(source)

    async def _delete_union(self) -> None:
        if not self._sources or self._image:
            return
        union = (await import_(self._server)).digest
        await self._server.manifests.delete(APP, union)
        if union in self._sources:
            self._sources.remove(union)
        else:
            self._sources = []

    async def _delete_tag(self) -> None:
        if self._sources or self._image:
            await self._server.manifests.delete(APP, TAG)
            self._sources, self._image = [], False

    async def _push_image(self) -> None:
        await self._server.manifests.push(APP, TAG, [], _IMAGE, OCI_MANIFEST)
        self._sources, self._image = [], True


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("losses", [True, False], ids=["losses", "no losses"])
async def test_whatever_happens_a_tag_is_what_it_should_be(
    tmp_path: Path, seed: int, losses: bool
) -> None:
    """Pushes, deletions, losses and images in any order, on either server: what is served has all
    that is left of the latest sources, names nothing that is not there, and is the same on both."""
    history = _History(tmp_path / "data", Random(seed), losses=losses)
    for _ in range(_OPERATIONS):
        await history.go_on()
    await history.check()
