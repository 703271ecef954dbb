from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from db.models import DeadLetter, MediaItem, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import JobStatus
from tasks.listener import Listener
from tasks.process import Stop
from tasks.queues import Queues
from tasks.runtime import Runtime, build

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ODD_NAMES = ("a b+c.jpg", "été à la mer.jpg", "100%25 & 'more'.jpg", "🎬.jpg", "e\u0301.jpg")


@pytest.fixture
def queues(empty_queues: Settings) -> Iterator[Queues]:
    queues = Queues(empty_queues)
    yield queues
    queues.client.close()


@pytest.fixture
def runtime(sessions: Sessions, empty_queues: Settings) -> Iterator[Runtime]:
    """A listener's runtime that waits for messages no longer than a second."""
    runtime = build(empty_queues.model_copy(update={"poll_wait": timedelta(seconds=1)}), pool_size=1)
    yield runtime
    runtime.engine.dispose()


def _poll_all(runtime: Runtime, least: int) -> int:
    """Poll until at least ``least`` messages were handled, or none comes any more."""
    listener, handled = Listener(runtime), 0
    while handled < least:
        count = listener.poll()
        if not count:
            break
        handled += count
    return handled


def _put(s3: S3Client, bucket: str, key: str, body: bytes = b"bytes") -> str:
    return s3.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId", "")


def _tell(queues: Queues, *bodies: str) -> None:
    for body in bodies:
        queues.client.send_message(QueueUrl=queues.url(Queue.EVENTS), MessageBody=body)


def _record(key: str, **found: Any) -> str:
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "footage"}, "object": {"key": key, "sequencer": "01"} | found},
    }
    return json.dumps({"Records": [record]})


def test_upload_becomes_a_published_job(
    runtime: Runtime, sessions: Sessions, s3: S3Client, bucket: str, queues: Queues
) -> None:
    key = f"uploads/{uuid4()}/étude + 1.jpg"
    version = _put(s3, bucket, key, b"12345")

    assert _poll_all(runtime, 1) == 1

    with sessions() as session:
        item = session.scalars(select(MediaItem)).one()
        assert (item.bucket, item.key, item.version_id) == (bucket, key, version)
        assert (item.size_bytes, bool(item.sequencer), bool(version)) == (5, True, True)
        job = session.scalars(select(ProcessingJob)).one()
        assert (job.media_item_id, job.requested_by) == (item.id, "listener")
        first = session.scalars(select(QueueRow).where(QueueRow.position == 0)).one()
        assert first.published_at is not None
    assert queues.waiting(Queue.STANDARD) == 1
    assert queues.waiting(Queue.EVENTS) == 0


def test_names_come_through_as_they_are(
    runtime: Runtime, sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    keys = {f"uploads/{uuid4()}/{name}" for name in ODD_NAMES}
    for key in keys:
        _put(s3, bucket, key)
    assert _poll_all(runtime, len(keys)) == len(keys)
    with sessions() as session:
        assert set(session.scalars(select(MediaItem.key))) == keys


def test_removal_ends_what_the_upload_began(
    runtime: Runtime, sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    gone, hidden = f"uploads/{uuid4()}/gone.jpg", f"uploads/{uuid4()}/hidden.jpg"
    version = _put(s3, bucket, gone)
    _put(s3, bucket, hidden)
    _poll_all(runtime, 2)

    s3.delete_object(Bucket=bucket, Key=gone, VersionId=version)
    s3.delete_object(Bucket=bucket, Key=hidden)  # leaves a delete marker
    _poll_all(runtime, 2)

    with sessions() as session:
        assert [item.deleted_at is not None for item in session.scalars(select(MediaItem))] == [True, True]
        assert set(session.scalars(select(ProcessingJob.status))) == {JobStatus.CANCELLED}


def test_events_of_one_upload_make_one_job(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    _tell(queues, *[_record("uploads/a.jpg")] * 3)
    assert _poll_all(runtime, 3) == 3
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(ProcessingJob)) == 1
    assert queues.waiting(Queue.STANDARD) == 1


def test_event_of_eventbridge_is_understood(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    detail = {"bucket": {"name": "footage"}, "object": {"key": "a+b é.jpg", "size": 3, "sequencer": "01"}}
    _tell(queues, json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail}))
    assert _poll_all(runtime, 1) == 1
    with sessions() as session:
        assert session.scalars(select(MediaItem.key)).one() == "a+b é.jpg"


JUNK = (
    "hello",
    "{}",
    '{"Records": 7}',
    json.dumps({"task": "x", "id": 1}),
    "x" * 250_000,
    json.dumps({"Records": [{"a": "b" * 200_000}]}),
    "[" * 50_000,
    "\t\n\r",
    '{"half a pair": "\\ud800"}',
    _record("a%00b"),
    _record("x" * 5_000),
    _record("a", size=-1),
    _record("a", size=2**70),
    _record("%FF%FE"),
    "\ufffd � 🎬",
)


def test_junk_is_kept_with_its_reason_and_the_listener_goes_on(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    _tell(queues, *JUNK, _record("uploads/after.jpg"))

    assert _poll_all(runtime, len(JUNK) + 1) == len(JUNK) + 1

    assert queues.waiting(Queue.EVENTS) == 0
    with sessions() as session:
        assert "uploads/after.jpg" in session.scalars(select(MediaItem.key)).all()
        letters = session.scalars(select(DeadLetter)).all()
        kept = {letter.body for letter in letters}
        assert set(JUNK) - kept <= {_record("%FF%FE")}
        assert {(letter.reason, letter.error_code, letter.queue) for letter in letters} == {
            ("not_ours", "NOT_OURS", Queue.EVENTS)
        }
        assert all(letter.error_message for letter in letters)
        assert all(letter.dead_lettered_at for letter in letters)
    assert queues.waiting(Queue.EVENTS_DEAD_LETTER) == len(letters)


def test_test_event_is_taken_and_forgotten(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    _tell(queues, json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "footage"}))
    assert _poll_all(runtime, 1) == 1
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(DeadLetter)) == 0


def test_message_stays_when_the_database_is_away(
    runtime: Runtime, sessions: Sessions, queues: Queues, settings: Settings
) -> None:
    _tell(queues, _record("uploads/a.jpg"))
    url = "postgresql://nobody@127.0.0.1:9/nothing"
    away = build(runtime.settings.model_copy(update={"database_url": SecretStr(url)}), pool_size=1)
    assert Listener(away).poll() == 0
    away.engine.dispose()
    assert queues.waiting(Queue.EVENTS) == 1
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(MediaItem)) == 0


def test_listener_runs_until_it_is_told_to_stop(
    runtime: Runtime, sessions: Sessions, s3: S3Client, bucket: str, queues: Queues
) -> None:
    stop = Stop()
    thread = threading.Thread(target=Listener(runtime).run, args=(stop,))
    thread.start()
    try:
        _tell(queues, "junk")
        _put(s3, bucket, f"uploads/{uuid4()}.jpg")
        for _ in range(100):
            with sessions() as session:
                found = session.scalar(select(func.count()).select_from(ProcessingJob))
            if found:
                break
            threading.Event().wait(0.1)
    finally:
        stop.set()
        thread.join(timeout=30)
    assert found == 1
    assert not thread.is_alive()


def test_listener_survives_a_queue_that_is_not_there(runtime: Runtime) -> None:
    lost = runtime.settings.model_copy(update={"queue_prefix": "dailies-elsewhere-"})
    astray = build(lost, pool_size=1)
    stop = Stop()
    thread = threading.Thread(target=Listener(astray).run, args=(stop,))
    thread.start()
    threading.Event().wait(0.5)
    alive = thread.is_alive()
    stop.set()
    thread.join(timeout=30)
    astray.engine.dispose()
    assert alive
    assert not thread.is_alive()


@pytest.fixture
def installed() -> Iterator[Stop]:
    """A stop that listens for signals, as in a process of ours."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Stop().install()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_comes_after_the_signal_goes_back_at_once(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    stop = Stop()
    thread = threading.Thread(target=Listener(_patient(runtime)).run, args=(stop,))
    thread.start()
    threading.Event().wait(1)  # its long poll is under way
    stop.set()
    _tell(queues, *(_record(f"uploads/{number}.jpg") for number in range(3)))
    thread.join(timeout=30)
    assert not thread.is_alive()
    told = queues.client.get_queue_attributes(
        QueueUrl=queues.url(Queue.EVENTS), AttributeNames=["ApproximateNumberOfMessages"]
    )
    assert told["Attributes"] == {"ApproximateNumberOfMessages": "3"}
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(MediaItem)) == 0


def _patient(runtime: Runtime) -> Runtime:
    """With a long poll that outlasts the moment between a signal and a message."""
    return replace(runtime, settings=runtime.settings.model_copy(update={"poll_wait": timedelta(seconds=5)}))


def test_signal_during_work_is_heard_after_it(installed: Stop) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # raises nothing here: a stage or an event is not cut in two
    assert installed.wait(60)
