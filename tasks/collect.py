"""What SQS moved to the dead-letter queues by itself, and what becomes of our own copies there."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from db import collected, queue
from db.session import guarded
from pipeline.errors import InfrastructureError, NotOursError
from pipeline.events import parse
from pipeline.queues import Queue
from tasks.dispatch import COPY_MARK, SCHEMA, is_newer
from tasks.queues import SQS_ERRORS, Queues
from tasks.runtime import Runtime

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

LOOK_EVERY = 180.0  #: seconds between passes over the queues
PATIENCE = 20.0  #: seconds that a pass over a queue takes at most
#: Seconds for which a message that stays is hidden: a pass sees each once, and then anybody sees how many.
HIDDEN = 30
#: The message attribute that counts how often an event was sent back to the events queue.
RETURNS = "dailies-returns"
MOST_RETURNS = 5


class Collector:
    """Empties the dead-letter queues of everything but the copies of open dead letters."""

    def __init__(self, runtime: Runtime, queues: Queues) -> None:
        self._runtime = runtime
        self._queues = queues
        self._looked = float("-inf")

    def run(self) -> int:
        """``collect``, when its time has come."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return 0
        self._looked = time.monotonic()
        return self.collect()

    def collect(self) -> int:
        """Look at the messages of each queue once; returns how many were dealt with."""
        return self._each(Queue.DEAD_LETTER, self._of_lane) + self._each(
            Queue.EVENTS_DEAD_LETTER, self._of_events
        )

    def _each(self, source: Queue, handle: Callable[[MessageTypeDef], bool]) -> int:
        done, end = 0, time.monotonic() + PATIENCE
        while True:
            received = self._receive(source)
            copies = [message for message in received if COPY_MARK in message.get("MessageAttributes", {})]
            done += self._delete_stale(source, copies)
            for message in received:
                if message not in copies:
                    done += self._alone(message, handle)
            if not received or time.monotonic() >= end:
                return done

    def _alone(self, message: MessageTypeDef, handle: Callable[[MessageTypeDef], bool]) -> bool:
        """Whether ``handle`` dealt with the message. One that it stumbles over harms no other."""
        try:
            with guarded():
                return handle(message)
        except (InfrastructureError, *SQS_ERRORS):
            raise
        except Exception:
            log.exception("message_left", message_id=message.get("MessageId"))
            return False

    def _receive(self, source: Queue) -> list[MessageTypeDef]:
        return self._queues.client.receive_message(
            QueueUrl=self._queues.url(source),
            MaxNumberOfMessages=10,
            WaitTimeSeconds=0,
            VisibilityTimeout=HIDDEN,
            MessageSystemAttributeNames=["SentTimestamp"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])

    def _delete(self, source: Queue, message: MessageTypeDef) -> None:
        self._queues.client.delete_message(
            QueueUrl=self._queues.url(source), ReceiptHandle=message["ReceiptHandle"]
        )

    def _delete_stale(self, source: Queue, copies: list[MessageTypeDef]) -> int:
        """Delete the copies whose dead letter is resolved or gone; the others stay, unseen for a while."""
        named = [(_letter_id(message["Body"]), message) for message in copies]
        if not named:
            return 0
        with self._runtime.sessions() as session:
            wanted = collected.open_letters(session, {letter_id for letter_id, _ in named if letter_id})
        stale = [message for letter_id, message in named if letter_id not in wanted]
        for message in stale:
            self._delete(source, message)
        return len(stale)

    def _of_lane(self, message: MessageTypeDef) -> bool:
        """A row's message costs its row a crash, and the row says what is next; anything else is kept."""
        try:
            row_id = row_of(message["Body"])
        except NotOursError as error:
            self._keep(message, error)
            return True
        if row_id is None:
            return False
        # Deleted before it is counted: a fault in between loses a hint, and counts nothing twice.
        self._delete(Queue.DEAD_LETTER, message)
        with self._runtime.sessions.begin() as session:
            known = queue.charge_undelivered(session, row_id, sent_at=_sent_at(message))
            if not known:
                queue.keep_foreign(session, source=None, body=str(row_id), error=_unknown(row_id))
        log.warning("message_collected", row_id=str(row_id), known=known)
        return True

    def _keep(self, message: MessageTypeDef, error: NotOursError) -> None:
        with self._runtime.sessions.begin() as session:
            queue.keep_foreign(session, source=None, body=message["Body"], error=error)
        self._delete(Queue.DEAD_LETTER, message)
        log.warning("message_not_ours", error=error.message)

    def _of_events(self, message: MessageTypeDef) -> bool:
        """An event goes back to the listener, a few times; then it is kept. Sent before it is deleted."""
        body = message["Body"]
        returns = _returns(message)
        try:
            parse(body)
        except NotOursError as error:
            with self._runtime.sessions.begin() as session:
                queue.keep_foreign(session, source=Queue.EVENTS, body=body, error=error)
        else:
            if returns < MOST_RETURNS:
                self._queues.client.send_message(
                    QueueUrl=self._queues.url(Queue.EVENTS),
                    MessageBody=body,
                    MessageAttributes={RETURNS: {"DataType": "Number", "StringValue": str(returns + 1)}},
                )
            else:
                with self._runtime.sessions.begin() as session:
                    collected.keep_event(session, body)
        self._delete(Queue.EVENTS_DEAD_LETTER, message)
        log.warning("event_collected", returns=returns)
        return True


def _sent_at(message: MessageTypeDef) -> datetime | None:
    sent = message.get("Attributes", {}).get("SentTimestamp", "")
    return datetime.fromtimestamp(int(sent) / 1000, UTC) if sent.isdecimal() else None


def _unknown(row_id: UUID) -> NotOursError:
    return NotOursError(
        f"No queue row has the id {row_id}; it was pruned, or the message is another system's."
    )


def _returns(message: MessageTypeDef) -> int:
    if RETURNS not in message.get("MessageAttributes", {}):
        return 0
    found = message["MessageAttributes"][RETURNS].get("StringValue", "")
    return int(found) if found.isdecimal() else MOST_RETURNS


def row_of(body: str) -> UUID | None:
    """The row that a lane's message names; None for a message of a newer release.

    Raises NotOursError for what no dispatch of ours has sent.
    """
    try:
        envelope = json.loads(body if body.lstrip().startswith("{") else b64decode(body, validate=True))
        task, told = envelope["headers"]["task"], json.loads(b64decode(envelope["body"]))[0]
        if not str(task).startswith("dailies."):
            raise NotOursError(f"The message is for the task {task!r}, which is not ours.")
        if is_newer(told[1] if len(told) > 1 else SCHEMA):
            return None
        return UUID(str(told[0]))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise NotOursError(
            "The message is no task of ours; look at what else sends to the queues."
        ) from error


def _letter_id(body: str) -> UUID | None:
    try:
        return UUID(json.loads(body)["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
