"""What was made on AWS and is gone: made again, with the messages and events that went with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from db import marks, queue
from db.models import DeadLetter, MediaItem, QueueRow
from db.session import Sessions
from pipeline.errors import InfrastructureError, NotOursError
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from tasks import repair
from tasks.bootstrap import bootstrap
from tasks.queues import Queues, sqs_name
from tasks.repair import Repair
from tasks.runtime import Runtime, build
from tasks.steward import POOL_SIZE, Steward
from tasks.topology import Topology
from tests.factories import now
from tests.support import due, new_job, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient


@pytest.fixture
def place(aws: Settings) -> Settings:
    """An environment of this module's own."""
    return aws.model_copy(
        update={
            "queue_prefix": f"{aws.queue_prefix}mended-",
            "storage_bucket": f"{aws.storage_bucket}-mended",
            "thumbnail_bucket": f"{aws.thumbnail_bucket}-mended",
        }
    )


@pytest.fixture
def runtime(place: Settings, sessions: Sessions) -> Iterator[Runtime]:
    bootstrap(place)
    runtime = build(place, pool_size=POOL_SIZE)
    yield runtime
    runtime.store.close()
    runtime.engine.dispose()


def _delete(sqs: SQSClient, settings: Settings, *queues: Queue) -> None:
    for one in queues:
        sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=sqs_name(settings, one))["QueueUrl"])


def _published(sessions: Sessions, **values: object) -> UUID:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
        given = {"published_at": now()} | values
        session.execute(update(QueueRow).where(QueueRow.id == row_id).values(**given))
    return row_id


def _published_at(sessions: Sessions, row_id: UUID) -> object:
    with sessions() as session:
        return session.scalar(select(QueueRow.published_at).where(QueueRow.id == row_id))


def test_what_bootstrap_made_differs_in_nothing(runtime: Runtime) -> None:
    survey = Topology(runtime.settings).survey()
    assert survey.differences == ()
    assert set(survey.made) == set(Queue)
    assert all(survey.made.values())
    assert Repair(runtime).run() == 0


def test_every_difference_is_said_and_repaired(
    runtime: Runtime, sqs: SQSClient, s3: S3Client, place: Settings
) -> None:
    url = sqs.get_queue_url(QueueName=sqs_name(place, Queue.BULK))["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1", "RedrivePolicy": ""})
    events = sqs.get_queue_url(QueueName=sqs_name(place, Queue.EVENTS))["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=events, Attributes={"Policy": ""})
    _delete(sqs, place, Queue.HEAVY)
    s3.put_bucket_notification_configuration(Bucket=place.storage_bucket, NotificationConfiguration={})
    s3.put_bucket_versioning(Bucket=place.storage_bucket, VersioningConfiguration={"Status": "Suspended"})

    said = "\n".join(one.what for one in Topology(place).survey().differences)
    for word in ("VisibilityTimeout", "RedrivePolicy", "policy lacks", "heavy is gone", "versions", "tell"):
        assert word in said
    assert Repair(runtime).run() == said.count("\n") + 1
    assert Topology(place).survey().differences == ()


def test_bucket_that_is_gone_is_said(place: Settings) -> None:
    nowhere = place.model_copy(update={"storage_bucket": "dailies-no-such-bucket"})
    said = [one.what for one in Topology(nowhere).survey().differences]
    assert "the bucket dailies-no-such-bucket is gone" in said


def test_wiped_broker_is_repaired_and_everything_is_published_again(
    runtime: Runtime,
    sessions: Sessions,
    sqs: SQSClient,
    s3: S3Client,
    sqs_queues: Queues,
) -> None:
    """Queues and notification are gone, messages and events with them; rows and objects tell of all."""
    place = runtime.settings
    Steward(runtime).step()
    waiting = [_published(sessions), _published(sessions, published_at=now() + timedelta(minutes=5))]
    with sessions.begin() as session:
        queue.keep_foreign(session, source=None, body="?", error=NotOursError("No row has this id."))
        session.execute(update(DeadLetter).values(dead_lettered_at=func.clock_timestamp()))
    _delete(sqs, place, *Queue)
    s3.put_bucket_notification_configuration(Bucket=place.storage_bucket, NotificationConfiguration={})
    s3.put_object(Bucket=place.storage_bucket, Key="uploads/told nobody.jpg", Body=b"1")

    Steward(runtime).step()

    queues = Queues(place)
    with sessions() as session:
        assert session.scalars(
            select(MediaItem.key).where(MediaItem.bucket == place.storage_bucket)
        ).all() == ["uploads/told nobody.jpg"]
    # Celery sends where this process's own settings say.
    assert sqs_queues.waiting(Queue.STANDARD) == len(waiting) + 1
    assert queues.waiting(Queue.DEAD_LETTER) == 1
    s3.put_object(Bucket=place.storage_bucket, Key="uploads/heard.jpg", Body=b"1")
    assert queues.waiting(Queue.EVENTS) >= 1
    queues.client.close()


def test_queues_that_somebody_else_made_again_have_lost_their_messages(
    runtime: Runtime, sessions: Sessions, sqs: SQSClient, place: Settings
) -> None:
    """A supervisor that starts the broker again is faster than the steward's look."""
    assert Repair(runtime).run() == 0
    row_id, other = _published(sessions), _published(sessions, queue=Queue.BULK)
    before = Topology(place).survey().made

    def made_again() -> bool:
        _delete(sqs, place, Queue.STANDARD, Queue.EVENTS)
        bootstrap(place)
        made = Topology(place).survey().made
        return all(made[one] != before[one] for one in (Queue.STANDARD, Queue.EVENTS))

    wait_until(made_again)  # SQS dates queues by the second

    assert Repair(runtime).run() == 0

    assert _published_at(sessions, row_id) is None
    assert _published_at(sessions, other) is not None
    with sessions() as session:
        asked = marks.get(session, marks.SCAN_OBJECTS)
        assert asked is not None
        assert asked.value == "at-once:"
    assert Repair(runtime).run() == 0


def test_what_is_there_is_not_looked_at_all_the_time(runtime: Runtime, s3: S3Client, place: Settings) -> None:
    one = Repair(runtime)
    assert one.run() == 0
    s3.put_bucket_notification_configuration(Bucket=place.storage_bucket, NotificationConfiguration={})
    assert one.run() == 0  # the notification is looked at twice a minute
    assert Repair(runtime).run() == 1


def test_repair_that_fails_mourns_a_loss_once(
    runtime: Runtime, sessions: Sessions, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that were sent again meanwhile are not lost again in every round."""
    assert Repair(runtime).run() == 0
    with sessions.begin() as session:  # somebody made the lane again since
        known = marks.get(session, marks.QUEUES_MADE)
        assert known is not None
        marks.put(session, marks.QUEUES_MADE, json.dumps(json.loads(known.value) | {Queue.STANDARD: "1"}))
    row_id = _published(sessions)
    s3.put_bucket_notification_configuration(Bucket=place.storage_bucket, NotificationConfiguration={})

    def refused(_: Settings) -> None:
        raise InfrastructureError("S3 does not answer.")

    monkeypatch.setattr(repair, "bootstrap", refused)
    one = Repair(runtime)
    for lost in (True, False):
        one._surveyed = float("-inf")
        with pytest.raises(InfrastructureError):
            one.run()
        assert (_published_at(sessions, row_id) is None) is lost
        with sessions.begin() as session:
            session.execute(update(QueueRow).where(QueueRow.id == row_id).values(published_at=now()))
    assert one.run() == 0  # it has looked a moment ago


def test_all_lanes_are_watched(runtime: Runtime, sqs: SQSClient, place: Settings) -> None:
    one = Repair(runtime)
    assert one.run() == 0
    for lane in LANES:
        _delete(sqs, place, lane)
        assert one.run() == 1
    assert Topology(place).missing() == []
