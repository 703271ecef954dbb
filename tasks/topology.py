"""Whether what ``bootstrap`` makes is still there: queues, redrive policies, the bucket's notification."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from pipeline.queues import Queue
from pipeline.settings import Settings
from tasks.bootstrap import IN_ORDER, STATEMENT_ID, tells, wanted_attributes
from tasks.queues import aws_client, sqs_name


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as ``bootstrap`` would leave it."""

    what: str  #: for people
    queue: Queue | None = None  #: the queue that is missing, if one is
    events: bool = False  #: events of the bucket may have been lost by it


@dataclass(frozen=True, slots=True)
class Survey:
    """All differences, and when each queue that is there was made, as SQS says."""

    differences: tuple[Difference, ...]
    made: dict[str, str]


class Topology:
    """Looks at queues and buckets; changes nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sqs, self._s3 = aws_client(settings, "sqs"), aws_client(settings, "s3")

    def missing(self) -> list[Queue]:
        """The queues that are gone: one cheap request for each."""
        return [queue for queue in Queue if self._url(queue) is None]

    def survey(self) -> Survey:
        """Compare everything. Raises botocore's errors when SQS or S3 does not answer."""
        differences: list[Difference] = []
        made: dict[str, str] = {}
        arns: dict[Queue, str] = {}
        for queue in IN_ORDER:
            attributes = self._attributes(queue)
            if attributes is None:
                events = queue is Queue.EVENTS
                differences.append(Difference(f"the queue {self._name(queue)} is gone", queue, events))
                continue
            arns[queue], made[queue] = attributes["QueueArn"], attributes.get("CreatedTimestamp", "")
            differences += self._changed(queue, attributes, wanted_attributes(self._settings, queue, arns))
        for bucket in (self._settings.storage_bucket, self._settings.thumbnail_bucket):
            differences += self._bucket(bucket)
        if Queue.EVENTS in arns:
            differences += self._notification(arns[Queue.EVENTS])
        return Survey(tuple(differences), made)

    def _name(self, queue: Queue) -> str:
        return sqs_name(self._settings, queue)

    def _url(self, queue: Queue) -> str | None:
        try:
            url: str = self._sqs.get_queue_url(QueueName=self._name(queue))["QueueUrl"]
        except self._sqs.exceptions.QueueDoesNotExist:
            return None
        return url

    def _attributes(self, queue: Queue) -> dict[str, str] | None:
        url = self._url(queue)
        if url is None:
            return None
        try:
            found: dict[str, str] = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
                "Attributes"
            ]
        except self._sqs.exceptions.QueueDoesNotExist:
            return None
        return found

    def _changed(self, queue: Queue, found: dict[str, str], wanted: dict[str, str]) -> list[Difference]:
        wrong = [
            Difference(f"{name} of {self._name(queue)} is {found.get(name) or 'not set'}, not {value}")
            for name, value in wanted.items()
            if _meaning(name, found.get(name)) != _meaning(name, value)
        ]
        if queue is Queue.EVENTS:
            statements = json.loads(found.get("Policy") or "{}").get("Statement", [])
            if not any(one.get("Sid") == STATEMENT_ID for one in statements):
                what = f"the bucket may not send to {self._name(queue)}: its policy lacks {STATEMENT_ID}"
                wrong.append(Difference(what, events=True))
        return wrong

    def _bucket(self, bucket: str) -> list[Difference]:
        try:
            versioning = self._s3.get_bucket_versioning(Bucket=bucket).get("Status")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
            return [Difference(f"the bucket {bucket} is gone")]
        if bucket == self._settings.storage_bucket and versioning != "Enabled":
            return [Difference(f"the bucket {bucket} keeps no versions")]
        return []

    def _notification(self, arn: str) -> list[Difference]:
        bucket = self._settings.storage_bucket
        try:
            found = self._s3.get_bucket_notification_configuration(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
                raise
            return []  # said already
        if tells(found.get("QueueConfigurations", []), arn):
            return []
        return [Difference(f"the bucket {bucket} does not tell {self._name(Queue.EVENTS)}", events=True)]


def _meaning(name: str, value: str | None) -> Any:
    """A policy is JSON, in which numbers may come as strings; the rest is compared as it is."""
    if name != "RedrivePolicy" or not value:
        return value or None
    return {key: str(one) for key, one in json.loads(value).items()}
