"""What is left of deleted and replaced media items, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import events, prune, similar
from db.events import Applied, Budgets
from db.models import DeadLetter, MediaItem, PerceptualHash, ProcessingJob, SearchDocument, Thumbnail
from db.session import Sessions
from pipeline.events import Change, ObjectEvent
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from tasks.housekeeping import Housekeeping
from tasks.runtime import Runtime, build
from tasks.scan import BucketScan, OrphanSweep
from tests.factories import (
    add_dead_letter,
    add_document,
    add_duplicate,
    add_item,
    add_job,
    add_thumbnails,
    now,
)
from tests.support import advance

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
KEEP = 90 * DAY
DONE = [TaskStatus.COMPLETED] * 6
CARRIED = (Thumbnail, SearchDocument, PerceptualHash)
KEY = "uploads/osprey.jpg"
#: S3 says what time it is in whole seconds.
AT_ONCE = timedelta(seconds=-2)


def _read_item(session: Session, ended: timedelta | None = None, **values: Any) -> MediaItem:
    """An item with all that the stages write, that ended so long ago."""
    if ended is not None:
        values |= {"deleted_at": now() - ended, "holds_hash": False}
    said = {"text": "Fade in.", "details": {"camera": {}}, "title": "Osprey", "latitude": 1.0}
    item = add_item(session, **(said | values))
    add_thumbnails(session, item)
    add_document(session, item, "osprey")
    similar.put(session, item.id, "ab" * 32, 100)
    return item


def _carrying(session: Session) -> list[set[UUID]]:
    return [set(session.scalars(select(model.media_item_id))) for model in CARRIED]


def _ended(session: Session, sequencer: str, *, ago: timedelta = 91 * DAY, **values: Any) -> MediaItem:
    given = {"bucket": "footage", "key": KEY, "version_id": f"v{sequencer}", "sha256": None} | values
    return add_item(session, sequencer=sequencer, deleted_at=now() - ago, holds_hash=False, **given)


def _left(session: Session) -> set[UUID]:
    return set(session.scalars(select(MediaItem.id)))


def _event(change: Change, **values: Any) -> ObjectEvent:
    given = {"bucket": "footage", "key": KEY, "size": 9, "etag": "e1", "version_id": "v1"} | values
    return ObjectEvent(change=change, **given)


def test_ended_item_loses_what_it_carries_in_batches(session: Session) -> None:
    gone = [_read_item(session, 2 * HOUR) for _ in range(3)]
    kept = {_read_item(session).id, _read_item(session, HOUR / 2).id}
    assert [prune.carried_by_ended_items(session, age=HOUR, limit=2) for _ in range(3)] == [2, 1, 0]
    assert _carrying(session) == [kept] * 3
    for item in gone:
        session.refresh(item, ["text"])
        session.refresh(item)
        assert (item.sha256, item.text, item.details, item.title, item.latitude) == (None, "", {}, None, None)
        assert (item.deleted_at is not None, item.kind, item.size_bytes) == (True, "image", 1000)


def test_ended_item_with_a_job_at_work_keeps_what_it_carries(session: Session) -> None:
    item = _read_item(session, 2 * HOUR)
    job = add_job(session, item)
    add_job(session, item, DONE, completed_at=now())
    assert prune.carried_by_ended_items(session, age=HOUR) == 0
    assert _carrying(session) == [{item.id}] * 3
    advance(session, job.id)
    assert prune.carried_by_ended_items(session, age=HOUR) == 1


def test_item_that_somebody_is_at_is_left_for_the_next_round(sessions: Sessions) -> None:
    with sessions.begin() as session:
        old = _ended(session, "01", sha256="ab" * 32)
        _ended(session, "02")
    with sessions.begin() as other, sessions.begin() as session:
        other.get_one(MediaItem, old.id, with_for_update=True)
        assert prune.carried_by_ended_items(session, age=HOUR) == 0
        assert prune.ended_items(session, keep=KEEP) == 0
    with sessions.begin() as session:
        assert prune.carried_by_ended_items(session, age=HOUR) == 1
        assert prune.ended_items(session, keep=KEEP) == 1


def test_ended_items_are_forgotten_by_age_in_batches_but_the_newest_of_each_key(session: Session) -> None:
    for number in range(1, 6):
        _ended(session, f"0{number}")
    kept = {
        _ended(session, "0A").id,
        _ended(session, "06", ago=89 * DAY).id,
        _ended(session, "01", key="uploads/other.jpg").id,
        _ended(session, "01", bucket="archive").id,
    }
    assert [prune.ended_items(session, keep=KEEP, limit=3) for _ in range(3)] == [3, 2, 0]
    assert _left(session) == kept


def test_newest_is_the_one_with_the_newest_sequencer(session: Session) -> None:
    newest = _ended(session, "00ff")
    for number in range(3):
        _ended(session, "", version_id=f"old-{number}")
    living = add_item(session, bucket="footage", key=KEY, version_id="found")
    _ended(session, "00FE99")
    assert prune.ended_items(session, keep=KEEP) == 4
    assert _left(session) == {newest.id, living.id}
    living.sequencer = "0100"  # the event of what the listing has found has come
    session.flush()
    assert prune.ended_items(session, keep=KEEP) == 1
    assert _left(session) == {living.id}


def test_ended_item_stays_as_long_as_what_refers_to_it(session: Session) -> None:
    of_a_job, of_a_letter, of_a_duplicate = (_ended(session, f"0{number}") for number in (1, 2, 3))
    last = _ended(session, "04")
    job = add_job(session, of_a_job, DONE, completed_at=now() - 91 * DAY)
    letter = add_dead_letter(session, media_item_id=of_a_letter.id)
    duplicate = add_duplicate(session, of_a_duplicate)
    assert prune.ended_items(session, keep=KEEP) == 0
    assert prune.finished_jobs(session, keep=KEEP) == 1
    session.delete(letter)
    duplicate.duplicate_of_id = None
    session.flush()
    assert prune.ended_items(session, keep=KEEP) == 3
    assert _left(session) == {last.id, duplicate.id}
    assert session.scalars(select(ProcessingJob.id).where(ProcessingJob.id == job.id)).all() == []
    assert session.scalar(select(func.count()).select_from(DeadLetter)) == 0


def test_event_of_a_version_that_was_forgotten_is_late_as_before(session: Session) -> None:
    for number in range(1, 4):
        _ended(session, f"000{number}", version_id=f"v{number}")
    assert prune.ended_items(session, keep=KEEP) == 2
    late = _event(Change.CREATED, version_id="v1", sequencer="0001")
    assert events.apply(session, late, Budgets()).what == "outdated"
    new = _event(Change.CREATED, version_id="v4", sequencer="0004")
    assert events.apply(session, new, Budgets()).what == "created"


@pytest.fixture
def hasty(stewards: Runtime) -> Iterator[Runtime]:
    """A steward's runtime, for which everything is old."""
    old = {"orphan_age": AT_ONCE, "keep_ended_items": AT_ONCE, "keep_finished": AT_ONCE}
    runtime = build(stewards.settings.model_copy(update=old), pool_size=3)
    with closing(runtime.store):
        yield runtime
    runtime.engine.dispose()


def _uploaded(sessions: Sessions, s3: S3Client, settings: Settings, body: bytes, sequencer: str) -> Applied:
    """A new version in the bucket, whose event has come, and whose job is done."""
    put = s3.put_object(Bucket=settings.storage_bucket, Key=KEY, Body=body)
    told = {"version_id": put["VersionId"], "etag": put["ETag"].strip('"'), "size": len(body)}
    event = _event(Change.CREATED, bucket=settings.storage_bucket, sequencer=sequencer, **told)
    with sessions.begin() as session:
        applied = events.apply(session, event, Budgets())
        assert applied.job_id is not None
        advance(session, applied.job_id)
    return applied


def _pictured(sessions: Sessions, s3: S3Client, settings: Settings, applied: Applied) -> str:
    """The key of a picture of the item that an upload has made, in the bucket and pointed at."""
    assert applied.media_item_id is not None
    with sessions.begin() as session:
        item = session.get_one(MediaItem, applied.media_item_id)
        item.sha256 = applied.media_item_id.hex * 2
        token = session.get_one(ProcessingJob, applied.job_id).rows[0].token or 0
        key = add_thumbnails(session, item, token=token)[0].file_reference
    s3.put_object(Bucket=settings.thumbnail_bucket, Key=key, Body=b"picture")
    return key


def test_pictures_of_a_replaced_file_leave_the_bucket(
    hasty: Runtime, sessions: Sessions, s3: S3Client
) -> None:
    settings = hasty.settings
    old = _pictured(sessions, s3, settings, _uploaded(sessions, s3, settings, b"old", "01"))
    new = _pictured(sessions, s3, settings, _uploaded(sessions, s3, settings, b"newer", "02"))
    assert OrphanSweep(hasty).run(patience=60) == (0, True)  # still pointed at

    Housekeeping(hasty).prune()
    assert OrphanSweep(hasty).run(patience=60) == (1, True)

    left = s3.list_objects_v2(Bucket=settings.thumbnail_bucket)["Contents"]
    assert [one["Key"] for one in left] == [new] != [old]
    with sessions() as session:
        assert [item.sequencer for item in session.scalars(select(MediaItem))] == ["02"]


def test_version_that_comes_back_when_it_was_forgotten_is_not_brought_back(
    hasty: Runtime, sessions: Sessions, s3: S3Client
) -> None:
    settings = hasty.settings
    _uploaded(sessions, s3, settings, b"old", "01")
    _uploaded(sessions, s3, settings, b"newer", "02")
    with sessions.begin() as session:
        version = session.scalars(select(MediaItem.version_id).where(MediaItem.sequencer == "02")).one()
        s3.delete_object(Bucket=settings.storage_bucket, Key=KEY, VersionId=version)
        gone = _event(Change.REMOVED, bucket=settings.storage_bucket, version_id=version, sequencer="03")
        assert events.apply(session, gone, Budgets()).what == "removed"
        session.execute(
            update(MediaItem)
            .where(MediaItem.deleted_at.is_not(None))
            .values(deleted_at=MediaItem.deleted_at + timedelta(seconds=1))  # S3's clock has whole seconds
        )
    Housekeeping(hasty).prune()
    with sessions() as session:
        assert [item.version_id for item in session.scalars(select(MediaItem))] == [version]
    scan = BucketScan(hasty)
    scan.progress.ask()
    assert scan.run(patience=60) == (0, True)
