"""Collection beside clients, interleaved at every call to the bucket.

Whatever clients, replicas and collectors do, and wherever they are paused or die: what was promised
is there for its lease, and what a tag leads to for as long as it does. When all of them have ended,
what is left is what tags lead to.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from tests.collection.promises import Client, Document, Promises, index, referrer
from tests.collection.rooms import APP, LEASE, image
from tests.collection.stage import Call, Operation, Process, Replica, Stage
from tests.registry.exports import export

_BLOBS = [b"zero", b"one", b"two"]
_LAYERS = [(b"zero", b"one"), (b"one", b"two")]
_IMAGES = [Document(image(*layers), OCI_MANIFEST) for layers in _LAYERS]
_DOCUMENTS = {
    "zero+one": _IMAGES[0],
    "one+two": _IMAGES[1],
    "index": index(*_IMAGES),
    "referrer": referrer(_IMAGES[0], b"two"),
}
_EXPORTS = [export("base", "run"), export("base", "test"), export("old", form="index")]
_TAGS = [Tag("a"), Tag("b")]
_CACHE = Tag("cache")
_ELSEWHERE = Repository("ci/lib")

_POLICIES = [
    Policies(),
    Policies(Policy(untagged=600.0)),
    Policies(Policy(image_tags=1, cache_unused=2 * LEASE)),
]
_PAUSES = [1.0, 9.0, 25.0, 200.0, 400.0, 3600.0, LEASE / 2, LEASE + 1200, LEASE + 1200]
_ENDS = ["", "", "deletion", "after deletion"]
_STOPS = ["deletion", "after deletion", "put", "after put", "after read", "after head", "answer"]

_any = st.integers(0, 63)
_now = st.sampled_from([True, True, True, False])
_mostly = st.booleans()


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stage-"))
        self.stage = Stage(self.folder)
        self.promises = Promises(self.stage)
        self.stage.on_step = self.promises.check
        self.replicas = [self.stage.replica(name) for name in ("one", "two")]
        self.collectors = [Process("first"), Process("second")]
        self.sent: list[tuple[Operation, Call]] = []
        self.deletes = False

    def teardown(self) -> None:
        try:
            self._liveness()
        finally:
            self.stage.close()
            shutil.rmtree(self.folder)

    @initialize(
        seconds=st.sampled_from([1.0, 200.0, LEASE / 2 - 600, LEASE - 600]),
        paused=st.sampled_from([0.0, 0.0, 200.0, LEASE]),
        polls=st.booleans(),
    )
    def garbage_is_condemned(self, seconds: float, paused: float, polls: bool) -> None:
        """Some time ago, which may be enough for dooming soon. If the first collector was paused
        as it condemned, by a second one too."""
        client, replica = self._client(0)
        for layers, document in zip(_LAYERS, _IMAGES, strict=True):
            self._start(replica, client.push_image(document, layers, None), True)
        self._start(replica, client.push_manifest(_DOCUMENTS["index"], _TAGS[0]), True)
        self._start(replica, client.export(_EXPORTS[0], _CACHE), True)
        self._start(replica, client.get(_CACHE), True)
        self._start(replica, client.delete(_TAGS[0]), True)
        self._start(replica, client.delete(_CACHE), True)
        self.time_passes(LEASE + 1200, False)
        first = self.stage.cycle()
        if paused:
            self.stage.run(first, "put", self.stage.namespace.batches())
            self.time_passes(paused, False)
            self.stage.do(self.stage.cycle())
        self.stage.do(first)
        self.time_passes(seconds, polls)

    # What clients do.

    @rule(which=_any, blob=st.sampled_from(_BLOBS), offered=st.booleans(), now=_now)
    def push_blob(self, which: int, blob: bytes, offered: bool, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.offer(blob) if offered else client.push(blob), now)

    @rule(which=_any, blob=st.sampled_from(_BLOBS), now=_now)
    def head(self, which: int, blob: bytes, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.head(blob), now)

    @rule(which=_any, blob=st.sampled_from(_BLOBS), now=_now)
    def mount(self, which: int, blob: bytes, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.mount(blob, _ELSEWHERE), now)

    @rule(
        which=_any,
        image=st.sampled_from([0, 1]),
        tag=st.sampled_from([*_TAGS, None]),
        offer=st.booleans(),
        now=_now,
    )
    def push_image(self, which: int, image: int, tag: Tag | None, offer: bool, now: bool) -> None:
        client, replica = self._client(which)
        work = client.push_image(_IMAGES[image], _LAYERS[image], tag, offer=offer)
        self._start(replica, work, now)

    @rule(
        which=_any,
        document=st.sampled_from(list(_DOCUMENTS)),
        tag=st.sampled_from([*_TAGS, None]),
        now=_now,
    )
    def push_manifest(self, which: int, document: str, tag: Tag | None, now: bool) -> None:
        """Also one whose layers are not there, or one that moves a tag to what is there."""
        client, replica = self._client(which)
        self._start(replica, client.push_manifest(_DOCUMENTS[document], tag), now)

    @rule(which=_any, made=st.integers(0, 2), now=_now)
    def export(self, which: int, made: int, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.export(_EXPORTS[made], _CACHE), now)

    @rule(which=_any, tag=st.sampled_from([_CACHE, _CACHE, *_TAGS]), now=_now)
    def pull(self, which: int, tag: Tag, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.get(tag), now)

    @rule(which=_any, document=st.sampled_from(list(_DOCUMENTS)), now=_now)
    def pull_by_digest(self, which: int, document: str, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.get(_DOCUMENTS[document].digest), now)

    @rule(which=_any, tag=st.sampled_from([_CACHE, *_TAGS]), now=_now)
    def delete_tag(self, which: int, tag: Tag, now: bool) -> None:
        client, replica = self._client(which)
        self._start(replica, client.delete(tag), now)

    @rule(which=_any, document=st.sampled_from(list(_DOCUMENTS)), now=_now)
    def delete_manifest(self, which: int, document: str, now: bool) -> None:
        self.deletes = True
        client, replica = self._client(which)
        self._start(replica, client.delete(_DOCUMENTS[document].digest), now)

    # What replicas and collectors do.

    @rule(which=_any, now=_now)
    def poll(self, which: int, now: bool) -> None:
        replica = self.replicas[which % len(self.replicas)]
        self._start(replica, replica.registry.condemned.poll(), now)

    @rule(which=_any, policies=st.integers(0, 2), now=_now)
    def collect(self, which: int, policies: int, now: bool) -> None:
        process = self.collectors[which % len(self.collectors)]
        if not any(each.process is process for each in self.stage.operations):
            cycle = self.stage.cycle(process, _POLICIES[policies])
            if now:
                self.stage.run(cycle)

    # How they go on.

    @precondition(lambda self: self.stage.operations)
    @rule(which=_any, steps=st.integers(1, 12), call=st.integers(0, 3))
    def go_on(self, which: int, steps: int, call: int) -> None:
        operation = self._operation(which)
        for _ in range(steps):
            self.stage.go_on(operation, call)

    @precondition(lambda self: self.stage.operations)
    @rule(which=_any, until=st.sampled_from(_STOPS))
    def go_on_until(self, which: int, until: str) -> None:
        self.stage.run(self._operation(which), until)

    @precondition(lambda self: self.stage.operations)
    @rule(which=_any)
    def end(self, which: int) -> None:
        self.stage.run(self._operation(which))

    # What befalls them.

    @rule(
        seconds=st.sampled_from([LEASE / 2 + 1200, LEASE / 2 + 1200, LEASE + 1200]),
        which=_any,
        policies=st.integers(0, 2),
        polls=_mostly,
        until=st.sampled_from(_ENDS),
    )
    def a_day_passes(
        self, seconds: float, which: int, policies: int, polls: bool, until: str
    ) -> None:
        """Or half of one, with a cycle at its end, perhaps not to the end of that. What is promised
        in the middle of two halves is still to be there when they are over."""
        self.time_passes(seconds, polls)
        process = self.collectors[which % len(self.collectors)]
        if not any(each.process is process for each in self.stage.operations):
            self.stage.run(self.stage.cycle(process, _POLICIES[policies]), until)

    @rule(seconds=st.sampled_from(_PAUSES), polls=_mostly)
    def time_passes(self, seconds: float, polls: bool) -> None:
        self.stage.time.now += seconds
        if polls:
            for replica in self.replicas:
                self._start(replica, replica.registry.condemned.poll(), True)

    @rule(which=_any, seconds=st.sampled_from([3600.0, LEASE + 1200, 3 * LEASE]))
    def machine_sleeps(self, which: int, seconds: float) -> None:
        self.stage.time.now += seconds
        self.replicas[which % len(self.replicas)].process.asleep += seconds

    @rule(which=_any)
    def polls_fail(self, which: int) -> None:
        process = self.replicas[which % len(self.replicas)].process
        process.blind = not process.blind

    @rule(which=_any)
    def replica_dies(self, which: int) -> None:
        at = which % len(self.replicas)
        replica = self.replicas[at]
        self.sent += self.stage.kill(replica.process)
        self.replicas[at] = self.stage.replica(replica.process.name)

    @rule(which=_any)
    def collector_dies(self, which: int) -> None:
        at = which % len(self.collectors)
        self.sent += self.stage.kill(self.collectors[at])
        self.collectors[at] = Process(self.collectors[at].name)

    @precondition(lambda self: self.sent)
    @rule(which=_any)
    def arrive_late(self, which: int) -> None:
        self.stage.arrive(self.sent.pop(which % len(self.sent)))

    def _client(self, which: int) -> tuple[Client, Replica]:
        replica = self.replicas[which % len(self.replicas)]
        return Client(self.promises, replica), replica

    def _start(self, replica: Replica, work: object, now: bool) -> None:
        operation = replica.start(work)  # type: ignore[arg-type]
        if now:
            self.stage.run(operation)

    def _operation(self, which: int) -> Operation:
        return self.stage.operations[which % len(self.stage.operations)]

    def _liveness(self) -> None:
        """Without clients, garbage goes in three leases."""
        for replica in self.replicas:
            self.stage.kill(replica.process)
        for process in self.collectors:
            self.stage.kill(process)
        self.promises.deleting.clear()
        for _ in range(4):
            self.stage.time.now += LEASE + 1200
            assert self.stage.do(self.stage.cycle()) is not None
        namespace, objects = self.stage.namespace, self.stage.bucket.objects
        referrers = self.promises.stored_referrers
        needed: set[str] = set()
        for tag in [*_TAGS, _CACHE]:
            for digest in self.promises.led_to(APP, tag):
                needed |= self.promises.whole(APP, digest, referrers)
        for (repository, subject), digests in referrers.items():
            for digest in digests:
                if namespace.manifest(repository, digest) in needed:
                    needed.add(namespace.referrer(repository, subject, digest))
        prefixes = [namespace.blobs(), namespace.batches()]
        prefixes += [namespace.manifests(each) for each in (APP, _ELSEWHERE)]
        prefixes += [] if self.deletes else [namespace.all_referrers(APP)]
        left = {key for key in objects if key.startswith(tuple(prefixes))}
        assert left <= needed, f"garbage that stays: {left - needed}"


TestCollection = Machine.TestCase
TestCollection.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
