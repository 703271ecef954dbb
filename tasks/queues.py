"""Queue names on SQS, their redrive policies, and which worker serves which lanes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from kombu import Exchange
from kombu import Queue as KombuQueue

from pipeline.errors import InfrastructureError
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

#: Where SQS moves what was received ``MAX_RECEIVES`` times and never deleted: what never reaches our code.
REDRIVE = {
    **dict.fromkeys(LANES, Queue.DEAD_LETTER),
    Queue.EVENTS: Queue.EVENTS_DEAD_LETTER,
}
#: An outage of the database returns a lane's messages too, once a minute: it may last for an hour and a half.
MAX_RECEIVES = {**dict.fromkeys(LANES, 100), Queue.EVENTS: 20}

#: Worker roles and the lanes each serves; every lane is served by one of them.
WORKERS: dict[str, tuple[Queue, ...]] = {
    "worker": (Queue.EXPRESS, Queue.STANDARD, Queue.BULK),
    "worker-heavy": (Queue.HEAVY,),
}

SQS_ERRORS = (BotoCoreError, ClientError)


def sqs_name(settings: Settings, queue: Queue) -> str:
    """The queue's name on SQS."""
    return f"{settings.queue_prefix}{queue}"


def kombu_queues() -> list[KombuQueue]:
    """The lanes as Celery declares them; kombu adds the prefix."""
    return [KombuQueue(lane, Exchange(lane, type="direct"), routing_key=lane) for lane in LANES]


def aws_client(settings: Settings, service: str, *, read_timeout: float = 30, attempts: int = 3) -> Any:
    """A boto3 client for ``service``, with timeouts that outlast a long poll and no more."""
    return boto3.client(
        service,  # type: ignore[call-overload]
        region_name=settings.aws_region,
        endpoint_url=settings.aws_endpoint_url or None,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=10,
        ),
    )


class Queues:
    """The SQS queues of one environment; URLs are looked up once."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self._settings = settings
        self.client: SQSClient = aws_client(settings, "sqs", **options)
        self._urls: dict[Queue, str] = {}

    def url(self, queue: Queue) -> str:
        """The queue's URL. Raises InfrastructureError when it is not there or SQS does not answer."""
        if queue not in self._urls:
            name = sqs_name(self._settings, queue)
            try:
                self._urls[queue] = self.client.get_queue_url(QueueName=name)["QueueUrl"]
            except SQS_ERRORS as error:
                raise InfrastructureError(
                    f"The queue {name} cannot be reached ({error}). `dailies bootstrap` makes a missing one.",
                    code="QUEUE_UNAVAILABLE",
                ) from error
        return self._urls[queue]

    def waiting(self, queue: Queue) -> int:
        """Messages in the queue: visible, in flight and delayed (approximate, as SQS counts)."""
        names = ("Messages", "MessagesNotVisible", "MessagesDelayed")
        attributes = self.client.get_queue_attributes(
            QueueUrl=self.url(queue),
            AttributeNames=[f"ApproximateNumberOf{name}" for name in names],  # type: ignore[misc]
        )["Attributes"]
        return sum(int(count) for count in attributes.values())


@lru_cache(maxsize=4)
def queues_of(settings: Settings) -> Queues:
    """The queues of ``settings``, shared by the threads of a process (boto3 clients may be)."""
    return Queues(settings)
