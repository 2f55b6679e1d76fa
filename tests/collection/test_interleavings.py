"""The interleavings that the rules of collection exist for, one by one.

Each of these loses something, or deletes what is new, when its rule is taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.errors import BlobUnknown, ManifestBlobUnknown, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Tag
from cacheproxy.registry.batches import Batch, read_batch, write_batch
from tests.collection.promises import Client, Document, Promises, index, referrer
from tests.collection.rooms import APP, LEASE, image, push, tag
from tests.collection.stage import Operation, Process, Replica, Stage
from tests.registry.exports import TAG, export

_KEEP = Policies()
MORE = 1200.0
BLOB = b"content"
IMAGE = Document(image(BLOB), OCI_MANIFEST)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "spool") as stage:
        yield stage


def has(stage: Stage, content: bytes = BLOB) -> bool:
    return stage.namespace.blob(digest_of(content)) in stage.bucket.objects


def collect(stage: Stage, times: int = 1, policies: Policies = _KEEP) -> None:
    for _ in range(times):
        stage.time.now += LEASE + MORE
        stage.do(stage.cycle(policies=policies))


def condemned(stage: Stage, *contents: bytes) -> Replica:
    """Blobs that were just condemned, and a replica that knows."""
    replica = stage.replica()
    for content in contents or (BLOB,):
        replica.do(push(replica.registry, content))
    collect(stage)
    replica.poll()
    return replica


def dooming(stage: Stage, until: str = "deletion") -> Operation:
    """A cycle that has doomed what is condemned, and has sent nothing yet."""
    stage.time.now += LEASE + MORE
    cycle = stage.cycle()
    assert stage.run(cycle, until)
    return cycle


def batches(stage: Stage) -> list[Batch]:
    objects = stage.bucket.objects
    return [
        read_batch(objects[key].data)
        for key in sorted(objects)
        if key.startswith(stage.namespace.batches())
    ]


def client(stage: Stage, replica: Replica) -> Client:
    return Client(Promises(stage), replica)


# A promise rescues.


@pytest.mark.parametrize("how", ["head", "mount", "push", "push a manifest", "pull a manifest"])
def test_whatever_is_promised_is_rescued(stage: Stage, how: str) -> None:
    """By a replica that knows that it is condemned, at the last moment."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    replica.do(client(stage, replica).push_manifest(IMAGE))
    collect(stage)
    stage.time.now += LEASE
    replica.poll()
    asked = client(stage, replica)
    works: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "head": lambda: asked.head(BLOB),
        "mount": lambda: asked.mount(BLOB, APP),
        "push": lambda: asked.push(BLOB),
        "push a manifest": lambda: asked.push_manifest(IMAGE),
        "pull a manifest": lambda: asked.get(IMAGE.digest),
    }
    assert replica.do(works[how]())
    stage.time.now += MORE
    stage.do(stage.cycle())

    stage.time.now += LEASE - 2 * MORE
    stage.do(stage.cycle())
    assert has(stage)
    assert (stage.namespace.manifest(APP, IMAGE.digest) in stage.bucket.objects) == (
        "manifest" in how
    )


def test_a_promise_made_just_before_a_batch_is_known_is_kept(stage: Stage) -> None:
    """The replica has polled before the batch was there, and answers as late as it may."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    replica.poll()
    stage.do(stage.cycle())
    stage.time.now += 299
    assert replica.do(client(stage, replica).head(BLOB))
    assert batches(stage)[0].keys

    for _ in range(10):  # seconds matter, so collectors come often
        stage.time.now += LEASE / 10
        stage.do(stage.cycle())
    assert has(stage)


def test_a_replica_whose_polls_fail_promises_nothing(stage: Stage) -> None:
    """It would not know what is doomed."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    replica.process.blind = True
    collect(stage)
    with pytest.raises(Unavailable):
        replica.do(replica.registry.blobs.size(APP, digest_of(BLOB)))
    dooming(stage)
    with pytest.raises(Unavailable):
        replica.do(replica.registry.blobs.size(APP, digest_of(BLOB)))


def test_rescue_and_doom_cannot_both_succeed(stage: Stage) -> None:
    """Whoever writes the batch first wins, and the other one looks again."""
    replica = condemned(stage)
    stage.time.now += LEASE + MORE
    cycle = stage.cycle()
    assert stage.run(cycle, "put", stage.namespace.batches())
    replica.poll()
    replica.do(client(stage, replica).head(BLOB))
    stage.do(cycle)
    assert has(stage)


def test_a_rescue_that_comes_too_late_fails(stage: Stage) -> None:
    replica = condemned(stage)
    stage.time.now += LEASE + MORE
    replica.poll()
    head = replica.start(replica.registry.blobs.size(APP, digest_of(BLOB)))
    assert stage.run(head, "put", stage.namespace.batches())
    cycle = stage.cycle()
    assert stage.run(cycle, "deletion")
    stage.run(head)

    assert isinstance(head.error, BlobUnknown)


def test_what_two_collectors_condemned_is_rescued_from_both(stage: Stage) -> None:
    """Correctness does not rest on whose turn it is."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    one = stage.cycle()
    assert stage.run(one, "put", stage.namespace.batches())
    stage.time.now += MORE  # its turn is over
    stage.do(stage.cycle())
    stage.do(one)
    assert len(batches(stage)) == 2
    stage.time.now += LEASE
    replica.poll()
    replica.do(client(stage, replica).head(BLOB))
    stage.time.now += MORE
    stage.do(stage.cycle())

    assert has(stage)


# What was seen may be gone.


def test_a_look_from_before_a_deletion_is_no_promise_after_it(stage: Stage) -> None:
    """The answer of the bucket comes when the batch is gone, of which the replica has heard."""
    replica = condemned(stage)
    cycle = dooming(stage)
    stranger = stage.replica("stranger")
    head = stranger.start(stranger.registry.blobs.size(APP, digest_of(BLOB)))
    assert stage.run(head, "after head")
    stage.do(cycle)
    stranger.poll()
    stage.run(head)

    assert isinstance(head.error, BlobUnknown)
    assert replica.process is not stranger.process


def test_a_machine_that_slept_knows_nothing_any_more(stage: Stage) -> None:
    """Its monotonic clock stood still, and batches have come and gone."""
    replica = stage.replica()
    asked = client(stage, replica)
    replica.do(push(replica.registry, BLOB))
    replica.do(asked.push_manifest(IMAGE))
    replica.do(asked.head(BLOB))
    begin = stage.time.now
    collect(stage, 3)
    replica.process.asleep = stage.time.now - begin

    assert not replica.do(asked.head(BLOB))
    assert replica.do(asked.get(IMAGE.digest)) is None


def test_a_manifest_that_was_deleted_while_it_was_rescued_is_not_served(stage: Stage) -> None:
    replica = stage.replica()
    replica.do(client(stage, replica).push_manifest(IMAGE))
    collect(stage)
    stage.time.now += LEASE + MORE
    replica.poll()
    pull = replica.start(client(stage, replica).get(IMAGE.digest))
    assert stage.run(pull, "read", stage.namespace.batches())
    stage.do(stage.cycle())

    assert stage.do(pull) is None


def test_reading_from_a_copy_is_no_proof(stage: Stage) -> None:
    """A replica may have on disk what the bucket has deleted."""
    replica = condemned(stage)
    digest = digest_of(BLOB)
    opened = replica.start(replica.registry.blobs.open(APP, digest))
    assert stage.run(opened, "after open")
    collect(stage)
    replica.poll()
    stage.do(opened).close()

    assert not replica.do(client(stage, replica).head(BLOB))


def with_disk(stage: Stage, folder: Path) -> Replica:
    """A replica that has a copy of what it has pushed."""
    tier = Tier(str(folder / "tier"), 1 << 20)
    replica = stage.replica("tiered", Contents(stage.bucket, SpoolFolder(tier.spool), tier))
    replica.do(push(replica.registry, BLOB))
    collect(stage)
    replica.poll()
    return replica


def test_a_copy_on_disk_is_no_proof_either(stage: Stage, tmp_path: Path) -> None:
    """A builder that is told it exists does not push it again."""
    replica = with_disk(stage, tmp_path)
    collect(stage)
    replica.poll()
    replica.do(replica.registry.blobs.open(APP, digest_of(BLOB))).close()

    assert not replica.do(client(stage, replica).head(BLOB))


def test_what_is_doomed_is_not_stored_again_from_disk(stage: Stage, tmp_path: Path) -> None:
    """It would be deleted again; when that is over, it is stored."""
    replica = with_disk(stage, tmp_path)
    cycle = dooming(stage)
    look = [digest_of(BLOB)]
    assert replica.do(replica.registry.blobs.present(APP, look, 0.0)) == {}
    stage.do(cycle)
    assert not has(stage)
    replica.poll()

    assert replica.do(replica.registry.blobs.present(APP, look, 0.0)) == {look[0]: len(BLOB)}
    assert has(stage)


# A manifest keeps what it leads to.


@pytest.mark.parametrize("how", ["push", "pull"])
def test_a_child_manifest_rescues_its_own_children(stage: Stage, how: str) -> None:
    """Also where only these are condemned: the child was pushed by who did not know that yet."""
    replica = stage.replica()
    asked = client(stage, replica)
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    replica.poll()
    stage.do(stage.cycle())
    both = index(IMAGE)
    replica.do(asked.push_manifest(IMAGE))
    if how == "pull":
        replica.do(asked.push_manifest(both))
    assert batches(stage)[0].keys
    stage.time.now += LEASE - MORE
    replica.poll()
    replica.do(asked.push_manifest(both) if how == "push" else asked.get(both.digest))
    stage.time.now += 3 * MORE
    stage.do(stage.cycle(policies=Policies(Policy(untagged=60.0))))

    assert has(stage)


def test_a_manifest_is_written_before_what_it_leads_to_is_rescued(stage: Stage) -> None:
    """Else the collector could condemn that in between, and nobody would rescue it."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    replica.poll()
    pushing = replica.start(tag(replica.registry, "latest", IMAGE.data))
    assert stage.run(pushing, "put", stage.namespace.manifests(APP))
    stage.do(stage.cycle())
    replica.poll()
    stage.do(pushing)
    assert not [batch for batch in batches(stage) if batch.keys]


def test_a_push_that_slept_on_its_way_fails_and_moves_no_tag(stage: Stage) -> None:
    """What it has rescued may be gone again."""
    replica = condemned(stage)
    pushing = replica.start(tag(replica.registry, "latest", IMAGE.data))
    assert stage.run(pushing, "after put", stage.namespace.batches())
    collect(stage, 3)
    stage.run(pushing)

    assert isinstance(pushing.error, Unavailable)
    assert stage.namespace.tag(APP, Tag("latest")) not in stage.bucket.objects


def test_an_import_that_slept_on_its_way_fails(stage: Stage) -> None:
    """What it has seen may be gone, though the manifest of that is there again."""
    replica, other = stage.replica(), stage.replica("other")
    exporter, importer = client(stage, replica), client(stage, other)
    for each in (export("one"), export("two")):
        replica.do(exporter.export(each, TAG))
    pull = other.start(importer.get(TAG))
    assert stage.run(pull, "after put", stage.namespace.tag(APP, TAG))
    [union, *_] = Promises(stage).led_to(APP, TAG)
    stored = stage.bucket.objects[stage.namespace.manifest(APP, union)]
    replica.do(exporter.delete(TAG))
    collect(stage, 3)
    replica.do(exporter.push_manifest(Document(stored.data, stored.metadata["media-type"])))

    assert stage.do(pull) is None


def test_no_image_can_refer_to_what_is_doomed(stage: Stage) -> None:
    """It may be deleted at any moment; the same push succeeds when it is gone and pushed again."""
    replica = condemned(stage)
    cycle = dooming(stage)
    with pytest.raises(ManifestBlobUnknown):
        replica.do(tag(replica.registry, "latest", IMAGE.data))
    stage.do(cycle)
    replica.do(push(replica.registry, BLOB))
    replica.do(tag(replica.registry, "latest", IMAGE.data))
    collect(stage, 3)

    assert has(stage)


def test_what_is_marked_again_is_not_doomed(stage: Stage) -> None:
    """A tag that was pushed by who did not know of the batch keeps all."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    replica.poll()
    stage.do(stage.cycle())
    replica.do(tag(replica.registry, "latest", IMAGE.data))
    assert batches(stage)[0].keys == (stage.namespace.blob(digest_of(BLOB)),)
    collect(stage, 3)

    assert has(stage)
    assert batches(stage) == []


def test_the_age_of_a_batch_is_told_after_it_was_there(stage: Stage) -> None:
    """Not by the time at which its writing began, which may have taken days."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    cycle = stage.cycle()
    assert stage.run(cycle, "put", stage.namespace.batches())
    stage.time.now += 2 * LEASE
    stage.do(cycle)
    stage.do(stage.cycle())

    assert has(stage)
    assert batches(stage)[0].since == stage.time.now


def test_a_batch_of_unknown_age_waits_for_its_whole_time(stage: Stage) -> None:
    """Its collector died before it could tell."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    process = Process("collector")
    cycle = stage.cycle(process)
    assert stage.run(cycle, "after put", stage.namespace.batches())
    stage.kill(process)
    collect(stage)
    assert has(stage)
    collect(stage)
    assert not has(stage)


# Nothing new is deleted.


def test_a_push_of_what_is_being_deleted_waits(stage: Stage) -> None:
    """Its bytes could be deleted else, as soon as they are there."""
    replica = condemned(stage)
    cycle = dooming(stage)
    pushing = replica.start(push(replica.registry, BLOB))
    assert stage.run(pushing, "sleep")
    stage.do(cycle)
    stage.do(pushing)

    assert has(stage)


def test_a_push_waits_also_for_a_manifest(stage: Stage) -> None:
    replica = stage.replica()
    replica.do(client(stage, replica).push_manifest(IMAGE))
    collect(stage)
    replica.poll()
    cycle = dooming(stage)
    pushing = replica.start(tag(replica.registry, "latest", IMAGE.data))
    stage.run(pushing, "sleep")
    stage.do(cycle)
    stage.do(pushing)

    assert stage.namespace.manifest(APP, IMAGE.digest) in stage.bucket.objects


def test_a_push_that_was_paused_for_days_looks_whether_it_is_there(stage: Stage) -> None:
    """It began before the object was condemned, and is stored in the middle of the deletion."""
    replica = stage.replica()
    replica.do(push(replica.registry, BLOB))
    stage.time.now += LEASE + MORE
    replica.poll()
    pushing = replica.start(push(replica.registry, BLOB))
    assert stage.run(pushing, "put", stage.namespace.blobs())
    stage.do(stage.cycle())
    cycle = dooming(stage)
    assert stage.run(pushing, "after put")
    stage.do(cycle)
    stage.run(pushing)

    assert isinstance(pushing.error, Unavailable)


def test_who_was_paused_before_it_sent_deletes_nothing_afterwards(stage: Stage) -> None:
    """Its requests have ended, whatever was written since."""
    replica = condemned(stage)
    late = dooming(stage)
    stage.time.now += MORE  # its turn is over
    stage.do(stage.cycle())
    assert not has(stage)
    replica.do(push(replica.registry, BLOB))
    stage.run(late)

    assert has(stage)


@pytest.mark.parametrize("where", ["put", "after put"])
def test_who_takes_over_a_deletion_fences_the_one_before(stage: Stage, where: str) -> None:
    """Who was paused between preparing and sending sends nothing more, or what ends in time."""
    replica = condemned(stage)
    stage.time.now += LEASE + MORE
    late = stage.cycle()
    assert stage.run(late, "put", stage.namespace.batches())  # to doom
    stage.go_on(late)
    stage.go_on(late)
    assert stage.run(late, where, stage.namespace.batches())  # the fence
    stage.time.now += 120.0
    stage.do(stage.cycle())
    replica.do(push(replica.registry, BLOB))
    sent: list[str] = []
    while not late.ended:
        call = stage.go_on(late)
        sent += [call.name] if call else []

    assert ("deletion" in sent) == (where == "after put")
    assert has(stage)


def test_what_a_dead_collector_sent_arrives_before_others_end(stage: Stage) -> None:
    """A successor waits for it, and whoever pushes waits for the successor."""
    replica = condemned(stage)
    process = Process("collector")
    stage.time.now += LEASE + MORE
    assert stage.run(stage.cycle(process), "deletion")
    [sent] = stage.kill(process)
    stage.bucket.remove(stage.namespace.collector())  # as if its turn were over
    successor = stage.cycle()
    assert stage.run(successor, "sleep")
    pushing = replica.start(push(replica.registry, BLOB))
    assert stage.run(pushing, "sleep")
    stage.time.now += 9
    stage.arrive(sent)
    stage.do(successor)
    stage.do(pushing)

    assert has(stage)


def test_a_collector_that_was_overtaken_does_not_end_the_batch_of_the_next(stage: Stage) -> None:
    """Who pushes would not wait any longer for what the next one sends."""
    condemned(stage)
    late = dooming(stage, "after deletion")
    assert stage.run(late, "put", stage.namespace.batches())  # to tell that it is done
    stage.bucket.remove(stage.namespace.collector())
    successor = stage.cycle()
    assert stage.run(successor, "sleep")
    stage.run(late)

    assert batches(stage)[0].keys


def test_a_batch_is_removed_only_when_it_is_empty(stage: Stage) -> None:
    """Many buckets that keep a condition on a write keep none on a delete: it could remove a
    batch that was just doomed."""
    replica = condemned(stage)
    removed: list[Batch] = []
    remove = stage.bucket.remove

    def removing(key: str) -> None:
        if key.startswith(stage.namespace.batches()):
            removed.append(read_batch(stage.bucket.objects[key].data))
        remove(key)

    stage.bucket.remove = removing  # type: ignore[method-assign]
    replica.do(client(stage, replica).head(BLOB))
    collect(stage, 4)
    replica.do(push(replica.registry, BLOB))
    replica.do(client(stage, replica).push_manifest(IMAGE))
    collect(stage, 4)

    assert len(removed) >= 2
    assert [batch.keys for batch in removed] == [()] * len(removed)


def test_the_record_of_a_referrer_goes_before_it(stage: Stage) -> None:
    """It is found by what refers; without that it would stay for ever."""
    replica = stage.replica()
    asked = client(stage, replica)
    refers = referrer(IMAGE, BLOB)
    replica.do(asked.push_manifest(refers))
    collect(stage)
    process = Process("collector")
    stage.time.now += LEASE + MORE
    stage.run(stage.cycle(process), "deletion")
    sent = stage.kill(process)
    for operation, call in sent:
        if "/_referrers/" not in call.key:  # the other request is lost
            stage.arrive((operation, call))
    collect(stage, 3)

    assert not [key for key in stage.bucket.objects if "/_referrers/" in key]


def test_what_was_written_anew_under_a_condemned_key_is_rescued(stage: Stage) -> None:
    """A batch of old must not doom it later."""
    replica = condemned(stage)
    replica.do(push(replica.registry, BLOB))
    assert not [batch for batch in batches(stage) if batch.keys]
    stage.time.now += LEASE - 10
    stage.do(stage.cycle())

    assert has(stage)


def test_a_damaged_batch_stops_those_who_would_have_to_know_it(stage: Stage) -> None:
    replica = condemned(stage)
    [key] = [key for key in stage.bucket.objects if key.startswith(stage.namespace.batches())]
    stage.bucket.place(key, write_batch(Batch(("x",)))[:-3])
    stage.time.now += MORE
    with pytest.raises(Unavailable):
        replica.do(replica.registry.blobs.size(APP, digest_of(BLOB)))
