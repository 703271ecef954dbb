from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import InfrastructureError
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from tasks.bootstrap import bootstrap
from tasks.control import queues_reachable
from tasks.queues import MAX_RECEIVES, REDRIVE, Queues, sqs_name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient


@pytest.fixture(scope="module")
def place(aws: Settings) -> Settings:
    """An environment of this module's own, not made yet."""
    return aws.model_copy(
        update={
            "queue_prefix": f"{aws.queue_prefix}made-",
            "storage_bucket": f"{aws.storage_bucket}-made",
            "thumbnail_bucket": f"{aws.thumbnail_bucket}-made",
        }
    )


@pytest.fixture
def made(place: Settings) -> Settings:
    bootstrap(place)
    return place


@pytest.fixture
def queues(made: Settings) -> Iterator[Queues]:
    queues = Queues(made)
    yield queues
    queues.client.close()


def _attributes(sqs: SQSClient, settings: Settings, queue: Queue) -> dict[str, Any]:
    url = sqs.get_queue_url(QueueName=sqs_name(settings, queue))["QueueUrl"]
    return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"].items())


def _state(sqs: SQSClient, s3: S3Client, settings: Settings) -> dict[str, Any]:
    """Everything that bootstrap is about, without what changes by itself."""
    changing = ("LastModifiedTimestamp", "ApproximateNumberOf")
    kept: dict[str, Any] = {
        queue: {
            name: value
            for name, value in _attributes(sqs, settings, queue).items()
            if not name.startswith(changing)
        }
        for queue in Queue
    }
    for bucket in (settings.storage_bucket, settings.thumbnail_bucket):
        found = s3.get_bucket_notification_configuration(Bucket=bucket)
        versions = s3.get_bucket_versioning(Bucket=bucket).get("Status")
        public = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        kept[bucket] = (found.get("QueueConfigurations"), versions, public)
    return kept


def test_doing_it_again_changes_nothing_and_tells_nobody(
    made: Settings, queues: Queues, sqs: SQSClient, s3: S3Client
) -> None:
    before, told = _state(sqs, s3, made), queues.waiting(Queue.EVENTS)
    bootstrap(made)
    assert _state(sqs, s3, made) == before
    assert queues.waiting(Queue.EVENTS) == told  # setting a notification sends a test event


@pytest.mark.parametrize("queue", Queue)
def test_queue_gives_up_into_its_dead_letter_queue(made: Settings, sqs: SQSClient, queue: Queue) -> None:
    attributes = _attributes(sqs, made, queue)
    assert attributes["VisibilityTimeout"] == str(int(made.visibility_timeout.total_seconds()))
    if queue not in REDRIVE:
        assert "RedrivePolicy" not in attributes
        assert attributes["MessageRetentionPeriod"] == str(14 * 24 * 3600)
        return
    policy = json.loads(attributes["RedrivePolicy"])
    assert policy["deadLetterTargetArn"] == _attributes(sqs, made, REDRIVE[queue])["QueueArn"]
    assert int(policy["maxReceiveCount"]) == MAX_RECEIVES[queue]


def test_what_was_changed_by_hand_is_put_right(made: Settings, sqs: SQSClient, s3: S3Client) -> None:
    before = _state(sqs, s3, made)
    url = sqs.get_queue_url(QueueName=sqs_name(made, Queue.BULK))["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1", "RedrivePolicy": ""})
    s3.put_bucket_notification_configuration(Bucket=made.storage_bucket, NotificationConfiguration={})
    s3.put_bucket_versioning(Bucket=made.storage_bucket, VersioningConfiguration={"Status": "Suspended"})
    assert _state(sqs, s3, made) != before
    bootstrap(made)
    assert _state(sqs, s3, made) == before


def test_only_the_bucket_may_send_events(made: Settings, sqs: SQSClient) -> None:
    (statement,) = json.loads(_attributes(sqs, made, Queue.EVENTS)["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"]["ArnEquals"] == {"aws:SourceArn": f"arn:aws:s3:::{made.storage_bucket}"}


def test_permission_that_somebody_else_gave_stays(made: Settings, sqs: SQSClient) -> None:
    url = sqs.get_queue_url(QueueName=sqs_name(made, Queue.EVENTS))["QueueUrl"]
    before = json.loads(_attributes(sqs, made, Queue.EVENTS)["Policy"])
    theirs = {"Sid": "Bridge", "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}}
    changed = {**before, "Statement": [theirs, *before["Statement"]]}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(changed)})
    bootstrap(made)
    assert json.loads(_attributes(sqs, made, Queue.EVENTS)["Policy"]) == changed
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(before)})


def test_upload_and_removal_are_told(made: Settings, queues: Queues, s3: S3Client) -> None:
    queues.client.purge_queue(QueueUrl=queues.url(Queue.EVENTS))
    s3.put_object(Bucket=made.storage_bucket, Key="uploads/a.jpg", Body=b"1")
    s3.delete_object(Bucket=made.storage_bucket, Key="uploads/a.jpg")
    s3.put_object(Bucket=made.thumbnail_bucket, Key="media_items/a.jpg", Body=b"1")  # nobody is told of these
    assert queues.waiting(Queue.EVENTS) == 2


def test_notification_that_somebody_else_added_stays(made: Settings, s3: S3Client, sqs: SQSClient) -> None:
    arn = _attributes(sqs, made, Queue.EVENTS)["QueueArn"]
    other = _attributes(sqs, made, Queue.EVENTS_DEAD_LETTER)["QueueArn"]
    theirs: Any = {"Id": "theirs", "QueueArn": other, "Events": ["s3:ObjectTagging:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=made.storage_bucket, NotificationConfiguration={"QueueConfigurations": [theirs]}
    )
    bootstrap(made)
    found = s3.get_bucket_notification_configuration(Bucket=made.storage_bucket)["QueueConfigurations"]
    assert {configuration["QueueArn"] for configuration in found} == {arn, other}
    s3.put_bucket_notification_configuration(Bucket=made.storage_bucket, NotificationConfiguration={})


def test_region_that_must_be_named_is_named(made: Settings, s3: S3Client) -> None:
    away = made.model_copy(
        update={"aws_region": "eu-central-1", "storage_bucket": f"{made.storage_bucket}-eu"}
    )
    bootstrap(away)
    assert s3.get_bucket_location(Bucket=away.storage_bucket)["LocationConstraint"] == "eu-central-1"


def test_queues_are_reachable_once_they_are_there(made: Settings) -> None:
    queues_reachable(made)
    nowhere = made.model_copy(update={"queue_prefix": "dailies-elsewhere-"})
    with pytest.raises(InfrastructureError, match="dailies bootstrap") as caught:
        queues_reachable(nowhere)
    assert caught.value.code == "QUEUE_UNAVAILABLE"


def test_broker_that_does_not_answer_is_said_so(made: Settings) -> None:
    away = made.model_copy(update={"aws_endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(InfrastructureError) as caught:
        Queues(away).url(LANES[0])
    assert caught.value.code == "QUEUE_UNAVAILABLE"
