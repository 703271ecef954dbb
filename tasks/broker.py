"""The SQS transport as this system needs it: events and remote control over SNS, and no leaked queues.

kombu's transport lacks three things that Flower and ``celery inspect`` need (seen with kombu 5.7.0): it
declares only direct exchanges, it deletes through the asynchronous client where there is no event loop, and
it routes a reply by the in-memory table of the process that declared the reply queue. Each is mended below.

Every capture and every inspect makes a queue and a subscription of its own. They are marked by tags here,
kept alive by their consumer, and deleted by ``tasks.sweep`` when nobody has polled them for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from kombu.transport import SQS
from kombu.transport.virtual import Base64  # noqa: F401 - kombu finds its codecs through the transport's module

from tasks.bundle import Bundle

if TYPE_CHECKING:
    from tasks.poller import Poller
    from tasks.receipts import Receipts

log = structlog.get_logger(__name__)

REPLY_EXCHANGE = "reply.celery.pidbox"
EVENT_EXCHANGE = "celeryev"
#: An event is a hint: nobody waits long for it to be sent.
SNS_CONFIG = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 1})
MUTE = 30.0  #: seconds without events after one that could not be sent
ALIVE_TAG = "dailies:polled-at"
#: A consumer marks its queue this often; the sweep deletes what was not marked for ``STALE_AFTER``.
MARK_EVERY, STALE_AFTER = 60.0, 600.0
#: Seconds after which a message that could not be worked on is visible again, at most.
BACK_AFTER_AT_MOST = 60
#: Seconds before a control queue that did not answer is asked again.
EAR_PAUSE = 2.0
#: Seconds until a message that found no consumer is shown again.
NOT_TAKEN = 5
#: Seconds an unread event or reply is kept: nobody reads old ones.
EPHEMERAL_RETENTION = 300


def is_ephemeral(name: str) -> bool:
    """Whether a queue belongs to one process: its events, its remote control, its replies."""
    return "celeryev" in name or "celery-pidbox" in name or "celery.pidbox" in name


def is_gone(error: Exception) -> bool:
    """Whether the broker says that there is no such queue or topic."""
    if not isinstance(error, ClientError):
        return False
    return error.response["Error"]["Code"].endswith(("NonExistentQueue", "QueueDoesNotExist", "NotFound"))


class Channel(SQS.Channel):
    """A channel that can fan out, answer, and clean up after itself."""

    do_restore = False  # what was not acknowledged comes again by itself; kombu would send it a second time

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._bundle: Bundle | None = None  # before kombu asks for its client
        super().__init__(*args, **kwargs)
        self._marked: dict[str, float] = {}
        self._mute_until = 0.0
        self._poller: Poller | None = None
        self._receipts: Receipts | None = None

    def sqs(self, queue: str | None = None) -> Any:
        """The client for a queue; while messages are bundled, one that keeps them."""
        client = super().sqs(queue)
        return client if self._bundle is None else self._bundle.of(client)

    @contextmanager
    def bundled(self) -> Iterator[Bundle]:
        """What is published on this channel meanwhile is kept, and leaves by ``Bundle.send``."""
        self._bundle = Bundle()
        try:
            yield self._bundle
        finally:
            self._bundle = None

    def exchange_declare(self, exchange: str | None = None, type: str = "direct", **kwargs: Any) -> Any:  # noqa: A002
        """Declare; a topic becomes a fan-out, because SNS sends everything to everybody."""
        return super().exchange_declare(exchange, "fanout" if type == "topic" else type, **kwargs)

    def queue_declare(self, queue: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Declare; a process's own queue that was swept meanwhile is made again."""
        try:
            return super().queue_declare(queue, *args, **kwargs)
        except ClientError as error:
            if queue is None or not is_gone(error) or not is_ephemeral(queue):
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
            return  # ``hear`` has done it
        self.sqs(queue=queue_name).delete_message(
            QueueUrl=self._new_queue(queue_name), ReceiptHandle=message["ReceiptHandle"]
        )

    def attach(self, poller: Poller, receipts: Receipts) -> None:
        """Leave the lanes to ``poller`` from now on, and what is owed for their messages to ``receipts``."""
        self._poller, self._receipts = poller, receipts

    def _schedule_queue(self, queue: str) -> None:
        """What kombu polls by its event loop. The lanes are not: see ``tasks.poller``."""
        if is_ephemeral(queue):
            Ear(self, queue).start()

    def receive(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Take a message that was received elsewhere to its consumer. Only in the event loop's thread."""
        handle = message["ReceiptHandle"]
        if not is_ephemeral(queue) and self._poller is not None and not self._poller.holds(handle):
            return  # it went back meanwhile
        try:
            if self.closed or queue not in self.connection._callbacks:  # noqa: SLF001 - kombu's own way in
                self.hand_back(handle, after=0)
            else:
                self.connection._callbacks[queue](self._message_to_python(message, queue, url))  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - one message ends no worker
            log.warning("message_not_taken", queue=queue, error=str(error))
            self.hand_back(handle, after=NOT_TAKEN)

    def hand_back(self, handle: str, *, after: int) -> None:
        """Show a message to everybody again in ``after`` seconds; it is none of ours any more."""
        if self._receipts is not None:
            self._receipts.give_back(handle, after=after)
        self._leave(handle)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's own
        """Acknowledge: the slot is free now, the message is deleted as soon as SQS takes it."""
        if self._receipts is None:
            super().basic_ack(delivery_tag, multiple)
            return
        self._receipts.delete(delivery_tag)
        self._leave(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's own
        """Reject; what is to come back comes back later each time, so that an outage is no busy loop.

        kombu makes it visible at once, and an outage of seconds would use up the queue's redrive policy.
        """
        if self._receipts is None:
            super().basic_reject(delivery_tag, requeue)
            return
        if requeue:
            self._receipts.give_back(delivery_tag, after=self._back_after(delivery_tag))
        else:
            self._receipts.delete(delivery_tag)
        self._leave(delivery_tag)

    def begun(self, delivery_tag: str) -> None:
        """A pool process has begun with this message."""
        if self._poller is not None:
            self._poller.begun(delivery_tag)

    def _back_after(self, delivery_tag: str) -> int:
        try:
            message: dict[str, Any] = self.qos.get(delivery_tag).delivery_info["sqs_message"]
        except KeyError:  # of a connection that was lost since
            return BACK_AFTER_AT_MOST
        received = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        return min(1 << min(received, 10), BACK_AFTER_AT_MOST)

    def _leave(self, delivery_tag: str) -> None:
        self.qos.ack(delivery_tag)  # forgets it here, and deletes nothing there
        if self._poller is not None:
            self._poller.done(delivery_tag)

    def _get_bulk(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        self._mark(queue)
        return super()._get_bulk(queue, *args, **kwargs)

    def remake(self, queue: str) -> None:
        """Make a process's own queue and its subscription again, after the broker has lost them."""
        self._queue_cache.pop(self.canonical_queue_name(queue), None)
        self._fanout = None  # it remembers topics and subscriptions that are gone too
        self._new_queue(queue)
        self._subscribe_queue_to_fanout_exchange_if_required(queue)

    def _put_fanout(self, exchange: str, *args: Any, **kwargs: Any) -> None:
        """Send to everybody. An event that cannot be sent is dropped, and those of the next half minute too.

        A worker sends them from its event loop, which would wait for a broker that is away with each.
        """
        is_event = exchange.endswith(EVENT_EXCHANGE)
        if is_event and time.monotonic() < self._mute_until:
            return
        try:
            self._send_to_all(exchange, *args, **kwargs)
        except (BotoCoreError, ClientError) as error:
            if not is_event:
                raise
            self._mute_until = time.monotonic() + MUTE
            log.warning("events_dropped", error=str(error), seconds=MUTE)

    def _send_to_all(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._put_fanout(*args, **kwargs)
        except ClientError as error:
            if not is_gone(error):
                raise
            self._fanout = None  # makes the topic again
            super()._put_fanout(*args, **kwargs)

    def _new_boto_client(self, service: str, *args: Any, **kwargs: Any) -> Any:
        if service == "sns":
            kwargs["config"] = SNS_CONFIG
        return super()._new_boto_client(service, *args, **kwargs)

    def hear(self, queue: str) -> list[dict[str, Any]]:
        """Messages of a process's own queue, deleted there: nobody reads an old command."""
        self._mark(queue)
        url = self._new_queue(queue)
        found: list[dict[str, Any]] = self._receive_message(queue, 10).get("Messages", [])
        for message in found:
            self.sqs(queue=queue).delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

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


class Ear(threading.Thread):
    """Listens on a worker's own queue (remote control) until its channel stops to consume it.

    kombu does this in the event loop, where an answer of SQS that is no success ends the listening for good.
    """

    def __init__(self, channel: Channel, queue: str) -> None:
        super().__init__(name=f"ear {queue}", daemon=True)
        self._channel, self._queue = channel, queue

    def run(self) -> None:
        """Receive, delete, hand to the event loop."""
        channel, queue = self._channel, self._queue
        while not channel.closed and queue in channel._active_queues:  # noqa: SLF001 - kombu's own state
            try:
                for message in channel.hear(queue):
                    channel.hub.call_soon(channel.receive, queue, "", message)
            except Exception as error:  # noqa: BLE001 - nothing may end the listening
                log.warning("control_poll_failed", queue=queue, error=str(error))
                time.sleep(EAR_PAUSE)
                if is_gone(error):
                    self._remake()

    def _remake(self) -> None:
        """The broker has lost the queue, and probably all it had: make it and its subscription again."""
        try:
            self._channel.remake(self._queue)
        except Exception as error:  # noqa: BLE001 - tried again
            log.warning("control_queue_not_made", queue=self._queue, error=str(error))


class Transport(SQS.Transport):
    """kombu's SQS transport with our channel and all three exchange types."""

    Channel = Channel
    implements = SQS.Transport.implements.extend(exchange_type=frozenset({"direct", "topic", "fanout"}))
