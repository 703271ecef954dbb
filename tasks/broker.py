"""The SQS transport as this system needs it: events and remote control over SNS, and no leaked queues.

kombu's transport lacks three things that Flower and ``celery inspect`` need (seen with kombu 5.7.0): it
declares only direct exchanges, it deletes through the asynchronous client where there is no event loop, and
it routes a reply by the in-memory table of the process that declared the reply queue. Each is mended below.

Every capture and every inspect makes a queue and a subscription of its own. They are marked by tags here,
kept alive by their consumer, and deleted by ``sweep`` when nobody has polled them for a while.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from kombu.transport import SQS
from kombu.transport.virtual import Base64  # noqa: F401 - kombu finds its codecs through the transport's module

from pipeline.settings import Settings
from tasks.queues import aws_client

log = structlog.get_logger(__name__)

REPLY_EXCHANGE = "reply.celery.pidbox"
ALIVE_TAG = "dailies:polled-at"
#: A consumer marks its queue this often; the sweep deletes what was not marked for ``STALE_AFTER``.
MARK_EVERY, STALE_AFTER = 60.0, 600.0
#: Seconds after which a message that could not be worked on is visible again, at most.
BACK_AFTER_AT_MOST = 60
#: Seconds an unread event or reply is kept: nobody reads old ones.
EPHEMERAL_RETENTION = 300


def is_ephemeral(name: str) -> bool:
    """Whether a queue belongs to one process: its events, its remote control, its replies."""
    return "celeryev" in name or "celery-pidbox" in name or "celery.pidbox" in name


class Channel(SQS.Channel):
    """A channel that can fan out, answer, and clean up after itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._marked: dict[str, float] = {}

    def exchange_declare(self, exchange: str | None = None, type: str = "direct", **kwargs: Any) -> Any:  # noqa: A002
        """Declare; a topic becomes a fan-out, because SNS sends everything to everybody."""
        return super().exchange_declare(exchange, "fanout" if type == "topic" else type, **kwargs)

    def queue_declare(self, queue: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Declare; a process's own queue that was swept meanwhile is made again."""
        try:
            return super().queue_declare(queue, *args, **kwargs)
        except ClientError as error:
            gone = error.response["Error"]["Code"].endswith(("NonExistentQueue", "QueueDoesNotExist"))
            if queue is None or not gone or not is_ephemeral(queue):
                raise
            self._queue_cache.pop(self.canonical_queue_name(queue), None)
            return super().queue_declare(queue, *args, **kwargs)

    def after_reply_message_received(self, queue: str) -> None:
        """Keep it: the next answer comes by it, AWS refuses its name for a minute, and the sweep takes it."""

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        if exchange == REPLY_EXCHANGE:
            return [f"{routing_key}.{REPLY_EXCHANGE}"]
        found: list[str] = super()._lookup(exchange, routing_key, default)
        return found

    def _create_queue(self, queue_name: str, attributes: dict[str, str]) -> Any:
        if not is_ephemeral(queue_name):
            return super()._create_queue(queue_name, attributes)
        return self.sqs(queue=queue_name).create_queue(
            QueueName=queue_name,
            Attributes={**attributes, "MessageRetentionPeriod": str(EPHEMERAL_RETENTION)},
            tags={ALIVE_TAG: str(int(time.time()))},
        )

    def _delete_message(self, queue_name: str, message: dict[str, Any]) -> None:
        if self.hub is not None:
            super()._delete_message(queue_name, message)
            return
        self.sqs(queue=queue_name).delete_message(
            QueueUrl=self._new_queue(queue_name), ReceiptHandle=message["ReceiptHandle"]
        )

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's own
        """Reject; what is to come back comes back later each time, so that an outage is no busy loop.

        kombu makes it visible at once, and an outage of seconds would use up the queue's redrive policy.
        """
        if not requeue:
            super().basic_reject(delivery_tag)
            return
        delivery = self.qos.get(delivery_tag).delivery_info
        received = int(delivery["sqs_message"].get("Attributes", {}).get("ApproximateReceiveCount", 1))
        try:
            self.sqs().change_message_visibility(
                QueueUrl=delivery["sqs_queue"],
                ReceiptHandle=delivery["sqs_message"]["ReceiptHandle"],
                VisibilityTimeout=min(2 ** min(received, 10), BACK_AFTER_AT_MOST),
            )
        except (BotoCoreError, ClientError) as error:
            log.warning("message_return_failed", error=str(error))  # back when its visibility ends
        self.qos.ack(delivery_tag)  # forgets it here, and deletes nothing there

    def _get_bulk(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        self._mark(queue)
        return super()._get_bulk(queue, *args, **kwargs)

    def _get_async(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        self._mark(queue)
        return super()._get_async(queue, *args, **kwargs)

    def _mark(self, queue: str) -> None:
        """Say that this queue is still polled, once a minute."""
        now = time.time()
        if not is_ephemeral(queue) or now - self._marked.get(queue, 0.0) < MARK_EVERY:
            return
        self._marked[queue] = now
        try:
            self.sqs(queue=queue).tag_queue(QueueUrl=self._new_queue(queue), Tags={ALIVE_TAG: str(int(now))})
        except (BotoCoreError, ClientError) as error:
            log.warning("queue_mark_failed", queue=queue, error=str(error))


class Transport(SQS.Transport):
    """kombu's SQS transport with our channel and all three exchange types."""

    Channel = Channel
    implements = SQS.Transport.implements.extend(exchange_type=frozenset({"direct", "topic", "fanout"}))


def sweep(settings: Settings, *, now: float | None = None) -> list[str]:
    """Delete ephemeral queues that nobody polls any more, and the subscriptions of queues that are gone.

    Returns the names of the queues deleted. A queue without a mark (made by another kombu) is left alone.
    """
    moment = time.time() if now is None else now
    sqs, sns = aws_client(settings, "sqs"), aws_client(settings, "sns")
    # Subscriptions first: a queue that is made from now on keeps the one that it is given.
    subscriptions = _subscriptions(sns, settings.queue_prefix)
    deleted: list[str] = []
    living: set[str] = set()
    for page in sqs.get_paginator("list_queues").paginate(QueueNamePrefix=settings.queue_prefix):
        for url in page.get("QueueUrls", []):
            name = url.rsplit("/", 1)[-1]
            marked = (
                sqs.list_queue_tags(QueueUrl=url).get("Tags", {}).get(ALIVE_TAG)
                if is_ephemeral(name)
                else None
            )
            if marked is not None and moment - float(marked) > STALE_AFTER:
                sqs.delete_queue(QueueUrl=url)
                deleted.append(name)
            else:
                living.add(name)
    for arn, endpoint in subscriptions:
        if endpoint not in living:
            sns.unsubscribe(SubscriptionArn=arn)
    return deleted


def _subscriptions(sns: Any, prefix: str) -> list[tuple[str, str]]:
    """(ARN, queue name) of the subscriptions that belong to ephemeral queues of ours, and no others."""
    return [
        (found["SubscriptionArn"], name)
        for page in sns.get_paginator("list_subscriptions").paginate()
        for found in page["Subscriptions"]
        if found["Protocol"] == "sqs" and found["SubscriptionArn"].startswith("arn:")
        if (name := found["Endpoint"].rsplit(":", 1)[-1]).startswith(prefix) and is_ephemeral(name)
    ]
