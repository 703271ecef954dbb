"""Make what Dailies needs on AWS: buckets, queues, notifications. Doing it again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from tasks.queues import MAX_RECEIVES, REDRIVE, aws_client, sqs_name

#: Days that SQS keeps what was given up on, and events that nobody has read; the longest there is.
RETENTION_DAYS = 14
SECONDS_A_DAY = 86_400
EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
NOTIFICATION_ID = "dailies"
STATEMENT_ID = "DailiesBucketEvents"
#: Dead-letter queues come before the queues that point at them.
IN_ORDER = sorted(Queue, key=lambda queue: queue in REDRIVE)


def bootstrap(settings: Settings) -> None:
    """Create what is missing and assert what is there: queues first, then what sends to them."""
    sqs, s3 = aws_client(settings, "sqs"), aws_client(settings, "s3")
    try:
        arns = _queues(sqs, settings)
        for bucket in (settings.storage_bucket, settings.thumbnail_bucket):
            _bucket(s3, bucket, settings.aws_region)
        s3.put_bucket_versioning(
            Bucket=settings.storage_bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        _notify(s3, settings, arns[Queue.EVENTS])
    finally:
        sqs.close()
        s3.close()


def _queues(sqs: Any, settings: Settings) -> dict[Queue, str]:
    arns: dict[Queue, str] = {}
    for queue in IN_ORDER:
        arns[queue] = _queue(sqs, sqs_name(settings, queue), wanted_attributes(settings, queue, arns))
    _allow_bucket(sqs, sqs_name(settings, Queue.EVENTS), arns[Queue.EVENTS], settings.storage_bucket)
    return arns


def wanted_attributes(settings: Settings, queue: Queue, arns: Mapping[Queue, str]) -> dict[str, str]:
    """The attributes of one queue; ``arns`` are those of the dead-letter queues, as far as they are there."""
    attributes = {"VisibilityTimeout": str(int(settings.visibility_timeout.total_seconds()))}
    if queue in REDRIVE and REDRIVE[queue] in arns:
        policy = {"deadLetterTargetArn": arns[REDRIVE[queue]], "maxReceiveCount": MAX_RECEIVES[queue]}
        attributes["RedrivePolicy"] = json.dumps(policy)
    if queue not in LANES:  # a lane's messages are hints, and sent again
        attributes["MessageRetentionPeriod"] = str(RETENTION_DAYS * SECONDS_A_DAY)
    return attributes


def _queue(sqs: Any, name: str, attributes: dict[str, str]) -> str:
    """Create one queue, or correct its attributes; returns its ARN."""
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    except sqs.exceptions.QueueDoesNotExist:
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn: str = found["Attributes"]["QueueArn"]
    return arn


def _allow_bucket(sqs: Any, name: str, arn: str, bucket: str) -> None:
    """S3, for our bucket alone, may send events. What somebody else allowed (EventBridge) stays."""
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"]).get("Attributes", {})
    theirs = json.loads(found.get("Policy") or "{}").get("Statement", [])
    ours = {
        "Sid": STATEMENT_ID,
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"}},
    }
    statements = [*(one for one in theirs if one.get("Sid") != STATEMENT_ID), ours]
    policy = {"Version": "2012-10-17", "Statement": statements}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})


def _bucket(s3: Any, name: str, region: str) -> None:
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        # us-east-1 is the one region that must not be named.
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **where)
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )


def _notify(s3: Any, settings: Settings, queue_arn: str) -> None:
    """Set our notification, unless it is there: each setting sends a test event. Those of others stay."""
    found = s3.get_bucket_notification_configuration(Bucket=settings.storage_bucket)
    found.pop("ResponseMetadata", None)
    queues = found.get("QueueConfigurations", [])
    if tells(queues, queue_arn):
        return
    # The call replaces the whole configuration of the bucket.
    others = [one for one in queues if one["QueueArn"] != queue_arn and one.get("Id") != NOTIFICATION_ID]
    wanted = {"Id": NOTIFICATION_ID, "QueueArn": queue_arn, "Events": EVENTS}
    s3.put_bucket_notification_configuration(
        Bucket=settings.storage_bucket,
        NotificationConfiguration={**found, "QueueConfigurations": [*others, wanted]},
    )


def tells(configurations: Sequence[Mapping[str, Any]], queue_arn: str) -> bool:
    """Whether a bucket with these notifications tells the queue of every upload and removal."""
    return any(
        one["QueueArn"] == queue_arn and sorted(one["Events"]) == sorted(EVENTS) for one in configurations
    )
