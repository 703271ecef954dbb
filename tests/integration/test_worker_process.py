"""A real prefork worker at the end of real queues."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from db import queue
from db.models import DeadLetter, MediaItem, ProcessingJob, QueueRow, Thumbnail
from db.session import Sessions
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import JOB_FINAL, JobStatus, TaskStatus
from tasks import dispatch
from tasks.app import get_app
from tasks.listener import Listener
from tasks.queues import Queues
from tasks.runtime import Runtime, build
from tests.images import detailed, encoded
from tests.support import due, kombu_message, new_job, purge, statuses, summaries, wait_until, worker_process

if TYPE_CHECKING:
    import subprocess

    from mypy_boto3_s3 import S3Client

PHOTO = encoded(detailed())


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker") / "worker.log"


@pytest.fixture(scope="module")
def worker(aws: Settings, database: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One worker for all tests here."""
    purge(aws)
    with worker_process(log, DAILIES_SPOOL_DIR=str(log.parent / "spool"), DAILIES_RETRY_BASE="1") as process:
        yield process


@pytest.fixture(autouse=True)
def _worker_tells(worker: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Show the worker's own lines where a test fails."""
    before = log.stat().st_size
    yield
    print(log.read_bytes()[before:].decode()[-10_000:])  # noqa: T201


@pytest.fixture
def runtime(sessions: Sessions, empty_queues: Settings) -> Iterator[Runtime]:
    runtime = build(empty_queues.model_copy(update={"poll_wait": timedelta(seconds=1)}), pool_size=1)
    yield runtime
    runtime.engine.dispose()


@pytest.fixture
def queues(empty_queues: Settings) -> Iterator[Queues]:
    queues = Queues(empty_queues)
    yield queues
    queues.client.close()


def _upload(s3: S3Client, bucket: str, *bodies: bytes) -> list[str]:
    keys = [f"uploads/{uuid4()}/été + {number}.jpg" for number in range(len(bodies))]
    for key, body in zip(keys, bodies, strict=True):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    return keys


def _listen(runtime: Runtime, count: int) -> None:
    handled = 0
    while handled < count:
        handled += Listener(runtime).poll()


def _wait_for_the_end(sessions: Sessions, jobs: int = 1, letters: int = 0) -> None:
    """Wait until there are so many jobs and dead letters, and all jobs are final."""

    def ended() -> bool:
        with sessions() as session:
            found = session.scalars(select(ProcessingJob.status)).all()
            kept = session.scalars(select(DeadLetter.id)).all()
        return (len(found), len(kept)) == (jobs, letters) and set(found) <= JOB_FINAL

    wait_until(ended)


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def _send(queues: Queues, *bodies: str) -> None:
    for body in bodies:
        queues.client.send_message(QueueUrl=queues.url(Queue.STANDARD), MessageBody=body)


def test_uploads_become_assets_and_a_broken_one_a_dead_letter(
    runtime: Runtime, sessions: Sessions, s3: S3Client, queues: Queues, log: Path
) -> None:
    settings = runtime.settings
    keys = _upload(s3, settings.storage_bucket, PHOTO, PHOTO, os.urandom(5000), b"")
    _listen(runtime, len(keys))
    _wait_for_the_end(sessions, len(keys), letters=2)

    with sessions() as session:
        found = session.execute(select(MediaItem.key, ProcessingJob).join(MediaItem))
        jobs: dict[str, ProcessingJob] = dict(found.all())
        assert [jobs[key].status for key in keys] == ["completed", "completed", "failed", "failed"]
        assert [jobs[key].error_code for key in keys[2:]] == ["UNSUPPORTED_TYPE", "EMPTY_FILE"]
        skipped = [statuses(session, jobs[key].id).count(TaskStatus.SKIPPED) for key in keys[:2]]
        assert sorted(skipped) == [0, 4]  # one original and one duplicate, whichever came first
        assert {len(summaries(session, job.id)) for job in jobs.values()} == {1}
        for picture in session.scalars(select(Thumbnail)):
            s3.head_object(Bucket=settings.thumbnail_bucket, Key=picture.file_reference)
        assert len(session.scalars(select(Thumbnail)).all()) == 3
        first = session.scalars(select(QueueRow).limit(1)).one()
    wait_until(lambda: queues.waiting(Queue.DEAD_LETTER) == 2)
    wait_until(lambda: queues.waiting(Queue.STANDARD) == 0)
    done = [line for line in _lines(log) if line["event"] == "stage_completed"]
    assert {"row_id", "job_id", "token", "stage", "ms", "cpu_ms", "role"} <= done[0].keys()
    assert str(first.id) in {line["row_id"] for line in done}


def test_worker_goes_on_after_messages_that_are_not_ours(
    runtime: Runtime, sessions: Sessions, s3: S3Client, queues: Queues
) -> None:
    stranger = uuid4()
    _send(
        queues,
        "hello",
        "{}",
        '{"body": 7}',
        json.dumps({"task": "x", "args": []}),
        b64encode(b"\xff\xfe\x00").decode(),
        "x" * 100_000,
        kombu_message(str(stranger), 1),
        kombu_message("no id at all", 1),
        kombu_message(None),
        kombu_message({"row": 1}, "1"),
        kombu_message(str(stranger), task="somebody.elses"),
        kombu_message(str(stranger))[:-40],
        kombu_message(str(stranger), kwargs={"a": 1}),
        kombu_message(str(stranger), embed={"callbacks": [{"task": "dailies.ingest"}]}),
        kombu_message(),
    )
    _upload(s3, runtime.settings.storage_bucket, PHOTO)
    _listen(runtime, 1)
    _wait_for_the_end(sessions, letters=15)

    with sessions() as session:
        assert session.scalars(select(ProcessingJob.status)).one() == JobStatus.COMPLETED
        letters = session.scalars(select(DeadLetter)).all()
        assert {letter.reason for letter in letters} == {"not_ours"}
        assert str(stranger) in {letter.body for letter in letters}


def test_message_of_a_newer_release_is_left_to_newer_workers(sessions: Sessions, queues: Queues) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
        queue.win_ticket(session, row_id)
    args = (str(row_id), dispatch.SCHEMA + 1, {"a field": "of a later release"})
    get_app().send_task("dailies.ingest", args=args, task_id=str(row_id), queue=Queue.STANDARD)

    def delayed() -> str:
        found = queues.client.get_queue_attributes(
            QueueUrl=queues.url(Queue.STANDARD), AttributeNames=["ApproximateNumberOfMessagesDelayed"]
        )
        return found["Attributes"]["ApproximateNumberOfMessagesDelayed"]

    # Nothing is in the queue or in flight but the message, sent again with a delay.
    wait_until(lambda: (delayed(), queues.waiting(Queue.STANDARD)) == ("1", 1))
    with sessions() as session:
        row = session.get_one(QueueRow, row_id)
        assert (row.status, row.token) == (TaskStatus.QUEUED, None)


def test_urgent_and_patient_lanes_are_served_too(sessions: Sessions, runtime: Runtime, s3: S3Client) -> None:
    keys = _upload(s3, runtime.settings.storage_bucket, PHOTO, encoded(detailed((100, 100))))
    with sessions.begin() as session:
        for key, priority in zip(keys, (10, 1), strict=True):
            item = MediaItem(bucket=runtime.settings.storage_bucket, key=key)
            session.add(item)
            session.flush()
            new_job(session, item, priority=priority)
    with sessions() as session:
        jobs = list(session.scalars(select(ProcessingJob.id)))
    assert [dispatch.publish_job(sessions, job_id) for job_id in jobs] == [True, True]
    _wait_for_the_end(sessions, 2)
    with sessions() as session:
        assert set(session.scalars(select(ProcessingJob.status))) == {JobStatus.COMPLETED}


def test_worker_keeps_its_slots_after_messages_that_are_odd(
    runtime: Runtime, sessions: Sessions, s3: S3Client, queues: Queues
) -> None:
    deep = "[" * 100_000
    odd = [
        json.dumps({"headers": {"id": "x", "task": []}, "properties": {}, "body": ""}),
        json.dumps({"headers": {"id": "x", "task": "dailies.ingest"}, "properties": {}, "body": deep}),
        deep,
        kombu_message("a \u0000 b"),
        kombu_message("\ud800"),
    ]
    _send(queues, *odd)
    _upload(s3, runtime.settings.storage_bucket, PHOTO)
    _listen(runtime, 1)
    _wait_for_the_end(sessions, letters=len(odd))
    wait_until(lambda: queues.waiting(Queue.STANDARD) == 0)
