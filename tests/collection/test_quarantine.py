"""Quarantine beside clients, interleaved at every call to the bucket.

Whatever is pushed and acknowledged while damage is moved away is there, wherever any of them is
paused or dies; and the damage itself is in its place or aside.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from cacheproxy.collection.budget import Budget
from cacheproxy.collection.fsck import Checked, Finding, Fsck
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.errors import BlobUnknown, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.registry.batches import VALID_SECONDS, WRITTEN_SECONDS, Batch, read_batch
from cacheproxy.storage.layout import Namespace
from tests.collection.promises import Document
from tests.collection.rooms import APP, LEASE, image, push
from tests.collection.stage import Call, Operation, Process, Replica, Stage

BLOB = b"content"
DAMAGED = b"c0ntent"
DIGEST = digest_of(BLOB)
KEY = Namespace().blob(DIGEST)
ASIDE = Namespace().quarantined(KEY)
IMAGE = Document(image(BLOB), OCI_MANIFEST)
MORE = 1200.0


class Pushes:
    """Of the blob, while it is damaged; what is acknowledged has to stay."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._begun: list[Operation] = []
        stage.on_step = self.check

    def begin(self, replica: Replica) -> Operation:
        operation = replica.start(push(replica.registry, BLOB), "push")
        self._begun.append(operation)
        return operation

    @property
    def acknowledged(self) -> bool:
        return any(each.ended and each.error is None for each in self._begun)

    def check(self) -> None:
        here, aside = content(self._stage), content(self._stage, ASIDE)
        if self.acknowledged:
            assert here == BLOB, "acknowledged and gone"
        elif not self._begun:
            assert DAMAGED in (here, aside), "neither here nor aside"


class Silent:
    def planned(self, size: int) -> None: ...

    def hashed(self, count: int) -> None: ...

    def found(self, finding: Finding) -> None: ...

    def waiting(self, count: int, seconds: float) -> None: ...

    def quarantined(self, what: str) -> None: ...


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "spool") as stage:
        yield stage


def content(stage: Stage, key: str = KEY) -> bytes | None:
    found = stage.bucket.objects.get(key)
    return None if found is None else found.data


def batches(stage: Stage) -> list[Batch]:
    objects = stage.bucket.objects
    prefix = stage.namespace.batches()
    return [read_batch(objects[key].data) for key in sorted(objects) if key.startswith(prefix)]


def damaged(stage: Stage) -> Replica:
    """A blob that was damaged, and a replica that remembers it."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.bucket.place(KEY, DAMAGED)
    return replica


def fsck(stage: Stage, process: Process | None = None) -> Operation:
    contents = Contents(stage.bucket, SpoolFolder("/nowhere"))
    run = Fsck(
        stage.bucket,
        stage.namespace,
        contents,
        Budget(1e12),
        Silent(),
        quarantine=True,
        sleep=stage.sleep,
    )
    return stage.start(process or Process("fsck"), run.run(), "fsck")


def go_on(stage: Stage, operation: Operation, steps: int) -> bool:
    """Whether there were so many."""
    return all(stage.go_on(operation) is not None for _ in range(steps))


def quarantined(stage: Stage) -> int:
    checked = stage.do(fsck(stage))
    assert isinstance(checked, Checked)
    return checked.quarantined


# What clients see.


def test_until_it_is_doomed_clients_are_answered_as_before(stage: Stage) -> None:
    """Also by who knows that it is about to be."""
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "sleep")
    replica.poll()

    assert replica.do(replica.registry.blobs.size(APP, DIGEST)) == len(BLOB)
    with replica.do(replica.registry.blobs.open(APP, DIGEST)) as file:
        assert file.read_at(0, 100) == DAMAGED
    assert replica.do(replica.registry.blobs.mount(APP, DIGEST, None))
    assert stage.do(run).quarantined == 1


def test_a_busy_blob_is_quarantined_all_the_same(stage: Stage) -> None:
    """Builders ask for it all the time: that rescues nothing, for it could not be kept."""
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "sleep")
    stage.time.now += VALID_SECONDS + 1
    replica.do(replica.registry.blobs.size(APP, DIGEST))
    replica.do(replica.registry.manifests.push(APP, IMAGE.digest, [], IMAGE.data, OCI_MANIFEST))

    assert stage.do(run).quarantined == 1
    assert (content(stage), content(stage, ASIDE)) == (None, DAMAGED)
    assert batches(stage) == []


def test_what_is_doomed_is_absent_and_pushes_of_it_wait(stage: Stage) -> None:
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "deletion")
    replica.poll()
    with pytest.raises(BlobUnknown):
        replica.do(replica.registry.blobs.size(APP, DIGEST))
    pushing = Pushes(stage).begin(replica)
    assert stage.run(pushing, "sleep")
    stage.do(run)
    stage.do(pushing)

    assert content(stage) == BLOB


def test_what_was_quarantined_is_unknown_to_who_remembered_it(stage: Stage) -> None:
    """As soon as the replica looks for what is condemned; so it is pushed again."""
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "sleep")
    replica.poll()
    stage.do(run)
    replica.poll()

    with pytest.raises(BlobUnknown):
        replica.do(replica.registry.blobs.size(APP, DIGEST))
    replica.do(push(replica.registry, BLOB))
    assert replica.do(replica.registry.blobs.size(APP, DIGEST)) == len(BLOB)


def test_a_blob_that_was_cut_and_pushed_again_has_its_size_everywhere(stage: Stage) -> None:
    """Who has seen it cut looks again."""
    replica = damaged(stage)
    stage.bucket.place(KEY, DAMAGED[:3])
    other = stage.replica("other")
    run = fsck(stage)
    assert stage.run(run, "sleep")
    other.poll()
    assert other.do(other.registry.blobs.size(APP, DIGEST)) == 3
    replica.poll()
    replica.do(push(replica.registry, BLOB))
    other.poll()

    assert other.do(other.registry.blobs.size(APP, DIGEST)) == len(BLOB)


# Nothing good is deleted.


def test_a_push_between_the_copy_and_the_deletion_is_not_lost(stage: Stage) -> None:
    """It takes the blob out of the batch, and that cannot be doomed as it was."""
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "after join")
    stage.do(Pushes(stage).begin(replica))

    assert stage.do(run).quarantined == 0
    assert content(stage) == BLOB


def test_a_push_by_who_does_not_know_is_seen(stage: Stage) -> None:
    """It leaves the batch as it is, so all is hashed again when no such push can come any more."""
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "sleep")
    stage.time.now += VALID_SECONDS - 1
    stage.do(Pushes(stage).begin(replica))
    assert batches(stage)[0].keys == (KEY,)

    assert stage.do(run).quarantined == 0
    assert content(stage) == BLOB
    assert batches(stage) == []


def test_a_push_that_began_without_knowing_looks_whether_it_is_there(stage: Stage) -> None:
    """It is stored after the last look, and then deleted: it had to be there before."""
    replica = damaged(stage)
    run = fsck(stage)
    assert stage.run(run, "sleep")
    stage.time.now += VALID_SECONDS - 1
    pushing = Pushes(stage).begin(replica)
    assert stage.run(pushing, "put", KEY)
    assert stage.run(run, "deletion")
    assert stage.run(pushing, "after put", KEY)
    stage.do(run)
    stage.run(pushing)

    assert isinstance(pushing.error, Unavailable)


def test_a_push_that_ends_after_the_last_look_takes_it_out(stage: Stage) -> None:
    """Though it began when nothing was known of the batch."""
    replica = damaged(stage)
    pushing = Pushes(stage).begin(replica)
    assert stage.run(pushing, "put", KEY)
    run = fsck(stage)
    assert stage.run(run, "after join")
    stage.do(pushing)

    assert stage.do(run).quarantined == 0
    assert content(stage) == BLOB


def test_what_is_stored_again_from_disk_is_not_lost(stage: Stage, tmp_path: Path) -> None:
    """By a replica that still has it, where somebody has deleted what was damaged."""
    tier = Tier(str(tmp_path / "tier"), 1 << 20)
    replica = stage.replica("tiered", Contents(stage.bucket, SpoolFolder(tier.spool), tier))
    replica.do(push(replica.registry, BLOB))
    stage.bucket.place(KEY, DAMAGED)
    run = fsck(stage)
    assert stage.run(run, "after join")
    replica.poll()
    stage.bucket.remove(KEY)
    replica.do(replica.registry.blobs.present(APP, [DIGEST], 0.0))
    assert content(stage) == BLOB

    assert stage.do(run).quarantined == 0
    assert content(stage) == BLOB


def test_only_what_was_not_pushed_is_moved(stage: Stage) -> None:
    """Of all that waits together."""
    replica = damaged(stage)
    replica.do(push(replica.registry, b"other"))
    other = stage.namespace.blob(digest_of(b"other"))
    stage.bucket.place(other, b"0ther")
    run = fsck(stage)
    assert stage.run(run, "sleep")
    replica.poll()
    stage.do(Pushes(stage).begin(replica))

    assert stage.do(run).quarantined == 1
    assert content(stage, stage.namespace.quarantined(other)) == b"0ther"
    assert content(stage, other) is None


def test_a_manifest_that_is_pushed_again_is_not_deleted(stage: Stage) -> None:
    """At any moment; what rotted has the version of what is good, so no condition would tell."""
    for steps in count():
        replica = stage.replica()
        pushing = replica.registry.manifests.push
        replica.do(pushing(APP, IMAGE.digest, [], IMAGE.data, OCI_MANIFEST))
        key = stage.namespace.manifest(APP, IMAGE.digest)
        good = stage.bucket.objects[key]
        rotten = type(good)(b"{" + good.data, good.modified, good.version, good.metadata)
        stage.bucket.objects[key] = rotten
        run = fsck(stage)
        if not go_on(stage, run, steps):
            break
        again = replica.start(pushing(APP, IMAGE.digest, [], IMAGE.data, OCI_MANIFEST))
        stage.run(again, "sleep")
        stage.do(run)
        stage.do(again)
        assert content(stage, key) == IMAGE.data


def test_two_at_once_lose_nothing(stage: Stage) -> None:
    """Two that damage was told to, as one was thought to have ended."""
    replica = damaged(stage)
    first, second = fsck(stage), fsck(stage)
    assert stage.run(first, "deletion")
    stage.run(second, "after join")
    stage.do(first)
    stage.do(second)
    assert (content(stage), content(stage, ASIDE)) == (None, DAMAGED)
    assert batches(stage) == []
    replica.poll()

    stage.do(Pushes(stage).begin(replica))
    assert content(stage) == BLOB


@pytest.mark.parametrize("pushed_first", [False, True])
@pytest.mark.parametrize("later", [0.0, VALID_SECONDS - 1])
def test_no_push_is_lost_wherever_both_are(
    tmp_path: Path, pushed_first: bool, later: float
) -> None:
    """From where the batch is written on, each of them goes any number of steps, then one of them
    goes to its end, then the other."""
    for first in count():
        for second in count():
            with Stage(tmp_path / "spool") as stage:
                replica = damaged(stage)
                pushes = Pushes(stage)
                run = fsck(stage)
                assert stage.run(run, "put", stage.namespace.batches())
                if not go_on(stage, run, first):
                    return
                stage.time.now += later
                pushing = pushes.begin(replica)
                ended = not go_on(stage, pushing, second)
                sleeps = [call.name for call in pushing.waiting] == ["sleep"]  # and looks again
                for each in (pushing, run) if pushed_first else (run, pushing):
                    stage.run(each)
                assert isinstance(pushing.error, Unavailable | None)
                assert run.error is None
                stage.do(pushes.begin(replica))
            if ended or sleeps:
                break


# Whoever dies.


@pytest.mark.parametrize("arrives", [False, True])
def test_whoever_dies_anywhere_is_succeeded(tmp_path: Path, arrives: bool) -> None:
    """By collectors where it was doomed, and else by the next run; what it has sent may arrive."""
    for steps in count():
        with Stage(tmp_path / "spool") as stage:
            replica = damaged(stage)
            pushes = Pushes(stage)
            process = Process("fsck")
            if not go_on(stage, fsck(stage, process), steps):
                break
            sent = stage.kill(process)
            for each in sent if arrives else ():
                stage.arrive(each)
            stage.do(stage.start(Process("collector"), stage.collector().finish()))
            assert not any(batch.doomed for batch in batches(stage))
            quarantined(stage)
            assert (content(stage), content(stage, ASIDE)) == (None, DAMAGED)
            replica.poll()
            stage.do(pushes.begin(replica))
            stage.time.now += LEASE
            stage.do(stage.cycle())
            stage.time.now += MORE
            stage.do(stage.cycle())
            assert batches(stage) == [] or content(stage) == BLOB


def test_the_batch_of_who_died_deletes_nothing(stage: Stage) -> None:
    """What it names was pushed by who did not know it, and is promised by who does."""
    replica = damaged(stage)
    process = Process("fsck")
    assert stage.run(fsck(stage, process), "sleep")
    stage.kill(process)
    stage.do(Pushes(stage).begin(replica))
    stage.time.now += MORE
    stage.do(stage.cycle())
    stage.time.now += LEASE + MORE - 60
    replica.poll()
    assert replica.do(replica.registry.blobs.size(APP, DIGEST)) == len(BLOB)
    stage.time.now += 60
    stage.do(stage.cycle())

    assert content(stage) == BLOB
    assert not any(batch.damaged for batch in batches(stage))


class Machine(RuleBasedStateMachine):
    """Two replicas, runs that die and are begun again, and collectors that end what those began."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="stage-")
        self.stage = Stage(Path(self.folder))
        self.replicas = [damaged(self.stage), self.stage.replica("other")]
        self.pushes = Pushes(self.stage)
        self.pushing = [self.pushes.begin(each) for each in self.replicas]
        self.process = Process("fsck")
        self.run = fsck(self.stage, self.process)
        self.sent: list[tuple[Operation, Call]] = []

    def teardown(self) -> None:
        try:
            for each in (self.run, *self.pushing):
                self.stage.run(each)
            self.collector_ends_what_is_doomed()
            moved = quarantined(self.stage)
            assert not (moved and self.pushes.acknowledged)
            assert content(self.stage) in (BLOB, None)
        finally:
            self.stage.close()
            shutil.rmtree(self.folder)

    @rule(steps=st.integers(1, 20))
    def fsck_goes_on(self, steps: int) -> None:
        go_on(self.stage, self.run, steps)

    @rule(until=st.sampled_from(["sleep", "after join", "deletion", "after deletion"]))
    def fsck_goes_on_until(self, until: str) -> None:
        self.stage.run(self.run, until)

    @rule(which=st.integers(0, 1), steps=st.integers(1, 6))
    def push_goes_on(self, which: int, steps: int) -> None:
        go_on(self.stage, self.pushing[which], steps)

    @rule(which=st.integers(0, 1), until=st.sampled_from(["put", "after put"]))
    def push_goes_on_until(self, which: int, until: str) -> None:
        self.stage.run(self.pushing[which], until, KEY)

    @rule(which=st.integers(0, 1))
    def push(self, which: int) -> None:
        if self.pushing[which].ended:
            self.pushing[which] = self.pushes.begin(self.replicas[which])

    @rule(which=st.integers(0, 1))
    def poll(self, which: int) -> None:
        self.replicas[which].poll()

    @rule(seconds=st.sampled_from([1.0, 30.0, VALID_SECONDS - 1, WRITTEN_SECONDS - 1]))
    def time_passes(self, seconds: float) -> None:
        self.stage.time.now += seconds

    @rule()
    def fsck_dies(self) -> None:
        self.sent += self.stage.kill(self.process)
        self.process = Process("fsck")
        self.run = fsck(self.stage, self.process)

    @precondition(lambda self: self.sent)
    @rule()
    def arrive_late(self) -> None:
        self.stage.arrive(self.sent.pop())

    @rule()
    def collector_ends_what_is_doomed(self) -> None:
        work = self.stage.collector().finish()
        self.stage.run(self.stage.start(Process("collector"), work))


TestQuarantine = Machine.TestCase
TestQuarantine.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
