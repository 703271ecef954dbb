"""The buckets against the tables: lost events, lost objects, orphaned pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select

from db import events, listing, marks, queue
from db.events import Budgets
from db.models import MediaItem, ProcessingJob, QueueRow, Thumbnail
from db.session import Sessions
from pipeline.events import Change, ObjectEvent
from pipeline.keys import thumbnail_key
from pipeline.settings import Settings
from pipeline.states import JobStatus, TaskStatus
from tasks import scan
from tasks.bootstrap import bootstrap
from tasks.runtime import Runtime, build
from tasks.scan import BucketScan, OrphanSweep
from tests.factories import add_item, add_job, now
from tests.support import advance, claimed, due, expire, new_job

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ODD_NAMES = (
    "a b+c.jpg",
    "été à la mer.jpg",
    "100%25 & 'more'.jpg",
    "🎬.jpg",
    "e\u0301.jpg",
    "Z.jpg",
    "ﬀ.jpg",
)

#: S3 says what time it is in whole seconds, and when an object was stored more exactly.
AT_ONCE = timedelta(seconds=-2)


@pytest.fixture
def place(aws: Settings) -> Settings:
    """Buckets of each test's own."""
    name = uuid4().hex[:12]
    return aws.model_copy(
        update={
            "storage_bucket": f"scanned-{name}",
            "thumbnail_bucket": f"swept-{name}",
            "queue_prefix": f"{aws.queue_prefix}scanned-",
            "orphan_age": AT_ONCE,
        }
    )


@pytest.fixture
def runtime(place: Settings, sessions: Sessions) -> Iterator[Runtime]:
    bootstrap(place)
    runtime = build(place, pool_size=3)
    with closing(runtime.store):
        yield runtime
    runtime.engine.dispose()


@pytest.fixture
def objects(runtime: Runtime) -> BucketScan:
    return BucketScan(runtime)


def _pass(objects: BucketScan) -> int:
    """A whole pass that was asked for, as after a repair: young objects count too."""
    objects.progress.ask()
    done, ended = objects.run(patience=60)
    assert ended
    return done


def _put(s3: S3Client, place: Settings, key: str, body: bytes = b"bytes") -> str:
    return s3.put_object(Bucket=place.storage_bucket, Key=key, Body=body)["VersionId"]


def _event(place: Settings, key: str, **values: Any) -> ObjectEvent:
    """What S3 tells of the newest object at ``key``."""
    return ObjectEvent(change=Change.CREATED, bucket=place.storage_bucket, key=key, **values)


def _heard(sessions: Sessions, s3: S3Client, place: Settings, key: str, sequencer: str) -> events.Applied:
    """The event of the newest object at ``key`` arrives."""
    head = s3.head_object(Bucket=place.storage_bucket, Key=key)
    event = _event(
        place,
        key,
        version_id=head["VersionId"],
        size=head["ContentLength"],
        etag=head["ETag"].strip('"'),
        sequencer=sequencer,
    )
    with sessions.begin() as session:
        return events.apply(session, event, Budgets())


def _items(sessions: Sessions, key: str, *, living: bool = True) -> list[MediaItem]:
    with sessions() as session:
        found = session.scalars(select(MediaItem).where(MediaItem.key == key).order_by(MediaItem.id))
        return [item for item in found if (item.deleted_at is None) is living]


def _jobs(sessions: Sessions) -> list[ProcessingJob]:
    with sessions() as session:
        return list(session.scalars(select(ProcessingJob).order_by(ProcessingJob.id)))


def test_objects_whose_events_were_lost_get_items_and_published_jobs(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "ITEMS", 2)  # several turns a page
    versions = {f"uploads/{name}": _put(s3, place, f"uploads/{name}") for name in ODD_NAMES}
    assert _pass(objects) == len(ODD_NAMES)
    assert _pass(objects) == 0
    for key, version in versions.items():
        (item,) = _items(sessions, key)
        assert (item.version_id, item.size_bytes, item.sequencer) == (version, 5, "")
    assert [(job.status, job.requested_by) for job in _jobs(sessions)] == [
        (JobStatus.QUEUED, "steward")
    ] * len(ODD_NAMES)
    with sessions() as session:
        first = session.scalars(select(QueueRow).where(QueueRow.position == 0)).all()
        assert all(row.published_at for row in first)


def test_event_that_comes_after_all_does_the_work_not_twice(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    """Neither while the job runs, nor when it has ended, well or not."""
    _put(s3, place, "uploads/a.jpg")
    _pass(objects)
    with sessions.begin() as session:
        queue.cancel_job(session, _jobs(sessions)[0].id, actor="ada", reason="no use")
    assert _heard(sessions, s3, place, "uploads/a.jpg", "0010").what == "repeated"
    assert len(_jobs(sessions)) == 1
    (item,) = _items(sessions, "uploads/a.jpg")
    assert item.sequencer == "0010"
    assert _heard(sessions, s3, place, "uploads/a.jpg", "0010").what == "repeated"


def test_older_upload_whose_event_comes_late_does_not_take_the_place_of_what_was_found(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    old = _put(s3, place, "uploads/a.jpg", b"old")
    new = _put(s3, place, "uploads/a.jpg", b"new!")
    _pass(objects)
    late = _event(place, "uploads/a.jpg", version_id=old, size=3, etag="old", sequencer="0001")
    with sessions.begin() as session:
        assert events.apply(session, late, Budgets()).what == "outdated"
    assert [item.version_id for item in _items(sessions, "uploads/a.jpg")] == [new]
    _put(s3, place, "uploads/a.jpg", b"newest")
    assert _heard(sessions, s3, place, "uploads/a.jpg", "0030").what == "created"


def test_overwritten_object_whose_event_was_lost_replaces_the_old_item(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    _put(s3, place, "uploads/a.jpg", b"old")
    _heard(sessions, s3, place, "uploads/a.jpg", "0010")
    new = _put(s3, place, "uploads/a.jpg", b"new!")
    assert _pass(objects) == 1
    assert [item.version_id for item in _items(sessions, "uploads/a.jpg")] == [new]
    assert [job.status for job in _jobs(sessions)] == [JobStatus.CANCELLED, JobStatus.QUEUED]


def test_object_that_was_heard_of_is_left_alone(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    for name in ODD_NAMES:
        _put(s3, place, f"uploads/{name}")
        _heard(sessions, s3, place, f"uploads/{name}", "0010")
    _put(s3, place, "uploads/Z.jpg")  # the same bytes again, and nobody told
    assert _pass(objects) == 0
    assert len(_jobs(sessions)) == len(ODD_NAMES)


def test_young_object_is_left_to_its_event(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(s3, place, "uploads/a.jpg")
    assert objects.run(patience=60) == (0, True)
    assert _items(sessions, "uploads/a.jpg") == []
    monkeypatch.setattr(scan, "YOUNG", AT_ONCE)
    assert objects.run(patience=60) == (1, True)


def test_item_whose_object_is_gone_is_removed(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    for key in ("uploads/a.jpg", "uploads/b.jpg", "uploads/c.jpg"):
        _put(s3, place, key, key.encode())
        _heard(sessions, s3, place, key, "0010")
    s3.delete_object(Bucket=place.storage_bucket, Key="uploads/b.jpg")
    assert _pass(objects) == 1
    (gone,) = _items(sessions, "uploads/b.jpg", living=False)
    assert (gone.deleted_by, gone.deleted_reason) == ("steward", "its object is gone from the bucket")
    assert [job.status for job in _jobs(sessions)] == [
        JobStatus.QUEUED,
        JobStatus.CANCELLED,
        JobStatus.QUEUED,
    ]
    assert _pass(objects) == 0


def test_bucket_that_lists_nothing_at_all_ends_no_items(
    objects: BucketScan, sessions: Sessions, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody emptied the bucket, or the settings name another one: that is for people to say."""
    monkeypatch.setattr(scan, "SUSPICIOUS", 2)
    with sessions.begin() as session:
        for _ in range(3):
            add_item(session, bucket=place.storage_bucket, etag="e")
    assert _pass(objects) == 0


def test_event_that_comes_in_between_goes_before_what_the_listing_said(
    sessions: Sessions, s3: S3Client, place: Settings, runtime: Runtime
) -> None:
    version = _put(s3, place, "uploads/a.jpg")
    with sessions() as session:
        before = events.seen(session, place.storage_bucket, "uploads/a.jpg")
    assert _heard(sessions, s3, place, "uploads/a.jpg", "0010").what == "created"
    found = _event(place, "uploads/a.jpg", version_id=version)
    with sessions.begin() as session:
        assert events.adopt(session, found, Budgets(), before=before, older=[]).what == "overtaken"
        assert events.drop(session, place.storage_bucket, "uploads/a.jpg", before=before).what == "overtaken"
    assert len(_items(sessions, "uploads/a.jpg")) == 1
    assert runtime.store.exists(place.storage_bucket, "uploads/a.jpg")


def test_deleted_item_of_an_object_that_is_still_there_stays_deleted(
    objects: BucketScan, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    _put(s3, place, "uploads/a.jpg")
    applied = _heard(sessions, s3, place, "uploads/a.jpg", "0010")
    with sessions.begin() as session:
        session.get_one(MediaItem, applied.media_item_id).deleted_at = now() - timedelta(hours=1)
    assert _pass(objects) == 0
    assert _items(sessions, "uploads/a.jpg") == []


def test_pass_goes_on_where_it_was_in_another_steward(
    runtime: Runtime, sessions: Sessions, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        _put(s3, place, f"uploads/{number}.jpg")
    real = runtime.store.list_page
    monkeypatch.setattr(
        type(runtime.store), "list_page", lambda _, bucket, *, after="": real(bucket, after=after, limit=2)
    )
    BucketScan(runtime).progress.ask()
    assert BucketScan(runtime).run(patience=0) == (2, False)
    with sessions() as session:
        mark = marks.get(session, marks.SCAN_OBJECTS)
        assert mark is not None
        assert mark.value == "at-once:uploads/1.jpg"
    assert BucketScan(runtime).run(patience=0) == (2, False)
    assert BucketScan(runtime).run(patience=0) == (1, True)
    assert not BucketScan(runtime).progress.due()


def test_pass_is_due_by_time_and_twice_when_it_was_asked_for(
    objects: BucketScan, sessions: Sessions, place: Settings
) -> None:
    def age(by: timedelta) -> None:
        with sessions.begin() as session:
            mark = marks.get(session, marks.SCAN_OBJECTS)
            assert mark is not None
            marks.put(session, marks.SCAN_OBJECTS, mark.value, at=mark.at - by)

    assert objects.progress.due()
    objects.run(patience=60)
    assert not objects.progress.due()
    age(place.bucket_scan_every)
    assert objects.progress.due()
    _pass(objects)
    assert not objects.progress.due()
    age(timedelta(seconds=61))
    assert objects.progress.due()
    objects.run(patience=60)
    age(timedelta(seconds=61))
    assert not objects.progress.due()


def _picture(s3: S3Client, place: Settings, token: int, variant: str = "small") -> str:
    key = thumbnail_key(
        entity_type="media_item",
        entity_id=uuid4(),
        variant=variant,
        fingerprint="ab12",
        token=token,
        extension="jpg",
    )
    s3.put_object(Bucket=place.thumbnail_bucket, Key=key, Body=b"picture")
    return key


def _pictures(s3: S3Client, place: Settings) -> set[str]:
    return {one["Key"] for one in s3.list_objects_v2(Bucket=place.thumbnail_bucket).get("Contents", [])}


def _attempt(sessions: Sessions) -> tuple[UUID, int]:
    """A row that is being processed, and the token of its attempt."""
    with sessions.begin() as session:
        claim = claimed(session, due(session, new_job(session).id))
        return claim.row_id, claim.token


def _second_attempt(sessions: Sessions) -> tuple[int, int]:
    """The tokens of an attempt that was lost, and of the one that runs in its place."""
    row_id, lost = _attempt(sessions)
    with sessions.begin() as session:
        expire(session, row_id)
        assert queue.release_expired(session, row_id, lost)
        return lost, claimed(session, row_id).token


def _ended_attempt(sessions: Sessions, s3: S3Client, place: Settings) -> tuple[int, str]:
    """The token of an attempt that has settled, and the key of the one picture that is pointed at."""
    row_id, token = _attempt(sessions)
    key = _picture(s3, place, token, "medium")
    with sessions.begin() as session:
        job_id = session.get_one(QueueRow, row_id).job_id
        item_id = session.get_one(ProcessingJob, job_id).media_item_id
        row = session.get_one(QueueRow, row_id)
        row.status, row.lease_expires_at, row.completed_at = TaskStatus.COMPLETED, None, now()
        given = {"entity_type": "media_item", "entity_id": item_id, "width": 1, "height": 1}
        session.add(
            Thumbnail(
                media_item_id=item_id, size_variant="medium", file_reference=key, file_size_bytes=1, **given
            )
        )
    return token, key


def _pruned_attempt(sessions: Sessions) -> int:
    with sessions.begin() as session:
        job = add_job(session, add_item(session), [TaskStatus.COMPLETED] * 6)
        token = job.rows[0].token
        session.execute(delete(ProcessingJob).where(ProcessingJob.id == job.id))
    assert token is not None
    return token


def test_pictures_that_nothing_will_point_at_are_deleted_and_no_others(
    runtime: Runtime, sessions: Sessions, s3: S3Client, place: Settings
) -> None:
    _, running = _attempt(sessions)
    lost, newer = _second_attempt(sessions)
    ended, pointed_at = _ended_attempt(sessions, s3, place)
    s3.put_object(Bucket=place.thumbnail_bucket, Key="notes/from somebody.txt", Body=b"?")
    kept = {
        _picture(s3, place, running),  # stored a moment ago, about to be settled
        _picture(s3, place, newer),
        _picture(s3, place, newer + 1_000_000),  # of another state of this database
        pointed_at,
        "notes/from somebody.txt",
    }
    pruned = _pruned_attempt(sessions)
    orphans = {_picture(s3, place, token) for token in (lost, ended, pruned)}
    assert _pictures(s3, place) == kept | orphans

    assert OrphanSweep(runtime).run(patience=60) == (len(orphans), True)

    assert _pictures(s3, place) == kept


def test_young_orphan_stays(runtime: Runtime, sessions: Sessions, s3: S3Client, place: Settings) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        advance(session, job.id)
        token = session.scalars(select(QueueRow.token).where(QueueRow.job_id == job.id)).first() or 0
    key = _picture(s3, place, token)
    old = build(place.model_copy(update={"orphan_age": timedelta(hours=1)}), pool_size=1)
    assert OrphanSweep(old).run(patience=60) == (0, True)
    old.store.close()
    old.engine.dispose()
    assert _pictures(s3, place) == {key}
    assert OrphanSweep(runtime).run(patience=60) == (1, True)
