"""Deliveries: each test hands a task what a message would; database, bucket and queues are real."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import structlog
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from sqlalchemy import func, select

from db import queue
from db.models import Attempt, DeadLetter, MediaItem, ProcessingJob, QueueRow, SearchDocument, Thumbnail
from db.session import Sessions
from pipeline import log as logs
from pipeline.errors import ObjectMissingError, PermanentStageError, TransientStageError
from pipeline.keys import parse_thumbnail_key
from pipeline.queues import Queue
from pipeline.settings import Settings, get_settings
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName
from tasks.app import get_app
from tasks.dispatch import publish
from tasks.queues import Queues
from tasks.runtime import get_runtime
from tests.factories import add_item, now
from tests.images import detailed, encoded
from tests.support import (
    advance,
    claimed,
    due,
    expire,
    new_job,
    row_of,
    statuses,
    summaries,
    uploaded,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TaskStatus
PHOTO = encoded(detailed())


def _forget_runtime() -> None:
    if get_runtime.cache_info().currsize:
        get_runtime().engine.dispose()
    get_runtime.cache_clear()
    get_settings.cache_clear()


@pytest.fixture(autouse=True)
def _runtime_of_its_own(
    empty_queues: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """As in a worker process that has just started. The app, and with it the broker, stays the same."""
    get_app()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.configure(empty_queues, role="worker")
    monkeypatch.setenv("DAILIES_SPOOL_DIR", str(tmp_path))
    _forget_runtime()
    yield
    _forget_runtime()
    monkeypatch.undo()
    get_settings.cache_clear()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _deliver(row_id: UUID | str, stage: str = "ingest", *more: Any) -> str:
    """What the worker does with a message. Every task is the same function; the row says what to do."""
    outcome: str = get_app().tasks[f"dailies.{stage}"](str(row_id), 1, *more)
    return outcome


def _due(sessions: Sessions, job: ProcessingJob) -> UUID:
    with sessions() as session:
        return due(session, job.id)


def _waiting(settings: Settings, lane: Queue) -> int:
    queues = Queues(settings)
    count = queues.waiting(lane)
    queues.client.close()
    return count


def _run(sessions: Sessions, job: ProcessingJob) -> None:
    """Deliver the job's rows until nothing is due."""
    with sessions() as session:
        while (row_id := queue.due_row(session, job.id)) is not None:
            assert _deliver(row_id) == "completed"
            session.rollback()


def test_six_deliveries_make_an_upload_an_asset(
    sessions: Sessions, s3: S3Client, bucket: str, aws: Settings
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    _run(sessions, job)

    with sessions() as session:
        job = session.get_one(ProcessingJob, job.id)
        assert (job.status, statuses(session, job.id)) == (JobStatus.COMPLETED, [T.COMPLETED] * 6)
        assert len(summaries(session, job.id)) == 1
        item = session.get_one(MediaItem, job.media_item_id)
        assert (item.kind, item.mime_type, item.width, item.height) == ("image", "image/jpeg", 300, 200)
        assert item.holds_hash
        assert item.thumbhash
        assert session.get_one(SearchDocument, item.id).title
        pictures = session.scalars(select(Thumbnail).where(Thumbnail.media_item_id == item.id)).all()
        assert {picture.size_variant for picture in pictures} == {"primary", "medium", "small"}
        token = row_of(session, job.id, StageName.THUMBNAILS).token
        for picture in pictures:
            head = s3.head_object(Bucket=aws.thumbnail_bucket, Key=picture.file_reference)
            assert (head["ContentLength"], head["ContentType"]) == (picture.file_size_bytes, "image/jpeg")
            parsed = parse_thumbnail_key(picture.file_reference)
            assert parsed is not None
            assert (parsed.entity_id, parsed.token) == (item.id, token)
        costs = session.execute(select(Attempt.duration_ms, Attempt.cpu_ms)).all()
        assert len(costs) == 6
        assert all(wall is not None and cpu is not None for wall, cpu in costs)
        for row in session.scalars(select(QueueRow)):
            assert row.processor_version
            assert row.result is not None


def test_pictures_come_from_the_decode_of_the_metadata_stage(
    sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    for _ in range(3):
        assert _deliver(_due(sessions, job)) == "completed"
    copy = get_runtime().spool.directory / (digest := hashlib.sha256(PHOTO).hexdigest())[:2] / digest
    copy.write_bytes(bytes(len(PHOTO)))  # whoever decodes it again fails
    assert _deliver(_due(sessions, job), "thumbnails") == "completed"


def test_each_delivery_publishes_the_next(
    sessions: Sessions, s3: S3Client, bucket: str, empty_queues: Settings
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO, priority=9)
    for sent in range(1, 6):
        _deliver(_due(sessions, job))
        assert _waiting(empty_queues, Queue.EXPRESS) == sent
    _deliver(_due(sessions, job))
    assert _waiting(empty_queues, Queue.EXPRESS) == 5


def test_same_bytes_again_are_a_duplicate_after_two_deliveries(
    sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    original, duplicate = (uploaded(sessions, s3, bucket, PHOTO) for _ in range(2))
    _run(sessions, original)
    _run(sessions, duplicate)
    with sessions() as session:
        assert statuses(session, duplicate.id) == [*[T.COMPLETED] * 2, *[T.SKIPPED] * 4]
        item = session.get_one(MediaItem, duplicate.media_item_id)
        assert (item.duplicate_of_id, item.width) == (original.media_item_id, 300)


def test_thumbnails_made_again_are_new_objects_and_the_rows_point_at_them(
    sessions: Sessions, s3: S3Client, bucket: str, aws: Settings
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    _run(sessions, job)
    with sessions() as session:
        before = set(session.scalars(select(Thumbnail.file_reference)))
    with sessions.begin() as session:
        item = session.get_one(MediaItem, job.media_item_id)
        again = new_job(session, item, workflow="thumbnails", config={"quality": 40})
    _run(sessions, again)
    with sessions() as session:
        after = set(session.scalars(select(Thumbnail.file_reference)))
    assert len(after) == 3
    assert not before & after
    for key in before | after:
        s3.head_object(Bucket=aws.thumbnail_bucket, Key=key)  # what is old is left for the sweep


BROKEN = {
    "EMPTY_FILE": b"",
    "UNSUPPORTED_TYPE": os.urandom(2000),
    "TRUNCATED_IMAGE": PHOTO[: len(PHOTO) // 2],
}


@pytest.mark.parametrize("code", BROKEN)
def test_broken_file_fails_its_job_and_is_in_both_dead_letter_stores(
    sessions: Sessions, s3: S3Client, empty_queues: Settings, code: str
) -> None:
    job = uploaded(sessions, s3, empty_queues.storage_bucket, BROKEN[code])
    with pytest.raises(PermanentStageError):  # so that Flower shows FAILURE with the reason
        _run(sessions, job)
    with sessions() as session:
        job = session.get_one(ProcessingJob, job.id)
        assert (job.status, job.error_code) == (JobStatus.FAILED, code)
        assert session.scalars(select(DeadLetter.error_code)).one() == code
        assert len(summaries(session, job.id)) == 1
    assert _waiting(empty_queues, Queue.DEAD_LETTER) == 1


def test_object_that_is_gone_fails_its_job_when_its_attempts_are_used_up(
    sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO, max_attempts=1)
    with sessions() as session:
        item = session.get_one(MediaItem, job.media_item_id)
        s3.delete_object(Bucket=bucket, Key=item.key, VersionId=item.version_id)
    with pytest.raises(ObjectMissingError):
        _deliver(_due(sessions, job))
    with sessions() as session:
        assert session.get_one(ProcessingJob, job.id).error_code == "OBJECT_MISSING"


def test_delivery_of_a_final_row_publishes_a_successor_that_was_not(
    sessions: Sessions, empty_queues: Settings
) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        first = due(session, job.id)
        advance(session, job.id, to=StageName.DEDUPE)
    assert _deliver(first) == "final"
    assert _deliver(first) == "final"
    assert _waiting(empty_queues, Queue.STANDARD) == 1


def test_early_delivery_comes_back_in_time_and_once(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        row = session.get_one(QueueRow, due(session, new_job(session).id))
        row.available_at, row.published_at = now() + timedelta(minutes=5), now()
    assert [_deliver(row.id) for _ in range(3)] == ["notdue"] * 3
    assert _waiting(empty_queues, Queue.STANDARD) == 1


def test_delivery_of_a_leased_row_comes_back_when_the_lease_ends_and_once(
    sessions: Sessions, empty_queues: Settings
) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
    publish(sessions, row_id)
    with sessions.begin() as session:
        claimed(session, row_id)
    assert [_deliver(row_id) for _ in range(3)] == ["leased"] * 3
    assert _waiting(empty_queues, Queue.STANDARD) == 2  # the first message, and one copy


def test_delivery_that_has_nothing_to_do_sends_nothing(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        job, paused = new_job(session), new_job(session, priority=1)
        queue.pause_lane(session, Queue.BULK, actor="ada")
        pending = row_of(session, job.id, StageName.INDEX).id
    assert _deliver(pending) == "pending"
    assert _deliver(_due(sessions, paused)) == "paused"
    assert sum(_waiting(empty_queues, lane) for lane in (Queue.STANDARD, Queue.BULK)) == 0


def test_delivery_for_a_row_whose_lease_has_ended_comes_back_until_the_steward_has_judged(
    sessions: Sessions, empty_queues: Settings
) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session, max_crashes=1).id)
        claimed(session, row_id)
        expire(session, row_id)
    with pytest.raises(Reject) as caught:
        _deliver(row_id)
    assert caught.value.requeue
    assert _waiting(empty_queues, Queue.STANDARD) == 0  # and no copy was sent


@pytest.mark.parametrize("row_id", ["01890a5d-ac96-774b-bcce-b302099a8057", "no id at all", "", "\ud800"])
def test_message_that_names_no_row_is_kept(sessions: Sessions, empty_queues: Settings, row_id: str) -> None:
    assert _deliver(row_id) == "unknown"
    with sessions() as session:
        letter = session.scalars(select(DeadLetter)).one()
        assert (letter.reason, letter.row_id) == ("not_ours", None)
    assert _waiting(empty_queues, Queue.DEAD_LETTER) == 1


def test_effect_that_fails_is_a_failure_with_its_reason(
    sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    _deliver(_due(sessions, job))
    with sessions.begin() as session:  # the table refuses a hash for an item that is deleted
        session.get_one(MediaItem, job.media_item_id).deleted_at = now()
    with pytest.raises(Retry):
        _deliver(_due(sessions, job))
    with sessions() as session:
        row = row_of(session, job.id, StageName.DEDUPE)
        assert (row.status, row.attempts, row.error_code) == (T.RETRYING, 1, "INTERNAL_ERROR")
        assert "IntegrityError" in (row.error_message or "")


def test_bucket_that_does_not_answer_costs_no_attempt(
    sessions: Sessions, s3: S3Client, bucket: str, empty_queues: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    monkeypatch.setenv("DAILIES_AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    _forget_runtime()
    with pytest.raises(Retry):  # so that Flower shows RETRY with the reason
        _deliver(_due(sessions, job))
    with sessions() as session:
        row = row_of(session, job.id, StageName.INGEST)
        assert (row.status, row.attempts, row.error_code) == (T.RETRYING, 0, "STORAGE_UNAVAILABLE")
        assert row.published_at == row.available_at  # the retry waits in SQS
    assert _waiting(empty_queues, Queue.STANDARD) == 1


def test_message_goes_back_when_the_database_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    _forget_runtime()
    with pytest.raises(Reject) as caught:
        _deliver(uuid4())
    assert caught.value.requeue


@contextmanager
def _time_limit(spool: Path, before: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Block the spool; while a stage waits for it, do ``before`` and tell the stage that its time is over."""

    def limit_is_over(*_: object) -> None:
        raise SoftTimeLimitExceeded

    def end() -> None:
        before()
        os.kill(os.getpid(), signal.SIGUSR1)  # as a pool tells its child

    old = signal.signal(signal.SIGUSR1, limit_is_over)
    timer = threading.Timer(1.0, end)
    with (spool / "locks" / "evict").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer.start()
        try:
            yield
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, old)


def test_stage_that_takes_too_long_is_tried_again(
    sessions: Sessions, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    _deliver(_due(sessions, job))
    with _time_limit(tmp_path), pytest.raises(Retry):
        _deliver(_due(sessions, job))
    with sessions() as session:
        row = row_of(session, job.id, StageName.DEDUPE)
        assert (row.status, row.attempts, row.error_code) == (T.RETRYING, 1, "TIME_LIMIT_EXCEEDED")


def test_attempts_used_up_end_in_the_stages_own_error(sessions: Sessions, s3: S3Client, bucket: str) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO, max_attempts=1)
    _deliver(_due(sessions, job))
    with sessions.begin() as session:
        session.get_one(MediaItem, job.media_item_id).deleted_at = now()
    with pytest.raises(TransientStageError):
        _deliver(_due(sessions, job))
    with sessions() as session:
        assert session.scalars(select(DeadLetter.reason)).one() == "attempts_exhausted"


def test_late_worker_is_fenced_and_leaves_the_row_alone(
    sessions: Sessions, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    job = uploaded(sessions, s3, bucket, PHOTO)
    _deliver(_due(sessions, job))

    def cancel() -> None:
        with sessions.begin() as session:
            queue.cancel_job(session, job.id, actor="ada", reason="wrong file")

    with _time_limit(tmp_path, cancel):
        assert _deliver(_due(sessions, job)) == "fenced"
    with sessions() as session:
        assert statuses(session, job.id) == [T.COMPLETED, *[T.CANCELLED] * 5]
        assert session.scalar(select(func.count()).select_from(DeadLetter)) == 0


def test_message_with_more_than_we_know_is_read_by_what_we_know(sessions: Sessions) -> None:
    with sessions.begin() as session:
        item = add_item(session)
        pending = row_of(session, new_job(session, item).id, StageName.INDEX).id
    assert _deliver(pending, "index", "a field of a later release") == "pending"
