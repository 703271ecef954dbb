"""From committed rows to messages. The only place that publishes; Celery's own canvas and retry do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from celery.app.task import Context
from kombu.exceptions import OperationalError

from db import queue
from db.models import DeadLetter
from db.session import Sessions
from pipeline.errors import InfrastructureError
from pipeline.queues import Queue
from pipeline.settings import Settings
from tasks.bundle import BUNDLE

log = structlog.get_logger(__name__)

#: Version of what a message says. A worker leaves a newer one to newer workers.
SCHEMA = 1
#: Seconds for which a message of a newer release waits for a newer worker.
NEWER_SCHEMA_DELAY = 30
#: A row whose message has waited so long for a newer worker is published again, by a steward that is there.
NEWER_PATIENCE = timedelta(minutes=10)
#: The message attribute that marks our own copies on the dead-letter queue: they are never published again.
COPY_MARK = "dailies"

BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE"  #: the code of a ``strict`` publication that was not sent
BROKER_ERRORS = (BotoCoreError, ClientError, OperationalError, OSError)


def is_newer(schema: object) -> bool:
    """Whether a message of this schema is for newer workers."""
    return str(schema).isdecimal() and int(str(schema)) > SCHEMA


def task_name(stage: str) -> str:
    """The Celery task of a stage."""
    return f"dailies.{stage}"


def publish(sessions: Sessions, row_id: UUID) -> bool:
    """Send the message of a row that nobody was told of, if it is ours to send: mark, commit, then send.

    Returns whether a message was sent. A broker that does not answer is no error here: the row says that it
    was not published, and the steward publishes it.
    """
    with sessions.begin() as session:
        ticket = queue.win_ticket(session, row_id)
    return _send_and_tell(sessions, ticket, strict=False)


def publish_all(sessions: Sessions, row_ids: Sequence[UUID]) -> int:
    """``publish`` for many rows, in their order, with a call to SQS for ten; returns how many were sent.

    Ends where the broker does not answer: those ten and the rest say that they wait. Raises
    InfrastructureError when nothing was sent before.
    """
    sent = 0
    for start in range(0, len(row_ids), BUNDLE):
        with sessions.begin() as session:
            tickets = queue.win_tickets(session, row_ids[start : start + BUNDLE])
        try:
            sent += _send_bundle(sessions, tickets) if tickets else 0
        except InfrastructureError:
            if not sent:
                raise
            break
    return sent


def _send_bundle(sessions: Sessions, tickets: list[queue.Ticket]) -> int:
    """Returns how many were sent; what was not is given back."""
    from tasks.app import get_app

    try:
        with get_app().producer_or_acquire() as producer, producer.channel.bundled() as bundle:
            for ticket in tickets:
                _send(ticket, producer=producer)
            refused: dict[int, str] = bundle.send()
    except BROKER_ERRORS as error:  # of some it may be unknown whether they were sent
        for ticket in tickets:
            _give_back(sessions, ticket, str(error))
        raise _broker_unavailable(error) from error
    for number, reason in refused.items():
        _give_back(sessions, tickets[number], reason)
    return len(tickets) - len(refused)


def publish_copy(sessions: Sessions, row_id: UUID, *, seen: datetime | None, strict: bool = False) -> bool:
    """Send the row's message once more, if ``published_at`` is still what the caller saw, and has passed.

    ``strict`` is for the steward: see ``publish_all``.
    """
    with sessions.begin() as session:
        ticket = queue.win_copy(session, row_id, seen=seen)
    return _send_and_tell(sessions, ticket, strict=strict)


def _send_and_tell(sessions: Sessions, ticket: queue.Ticket | None, *, strict: bool) -> bool:
    if ticket is None:
        return False
    try:
        _send(ticket)
    except BROKER_ERRORS as error:
        _give_back(sessions, ticket, str(error))
        if strict:
            raise _broker_unavailable(error) from error
        return False
    return True


def _broker_unavailable(reason: object) -> InfrastructureError:
    return InfrastructureError(f"The broker does not answer: {reason}", code=BROKER_UNAVAILABLE)


def _give_back(sessions: Sessions, ticket: queue.Ticket, reason: str) -> None:
    log.warning("publish_failed", row_id=str(ticket.row_id), error=reason)
    with sessions.begin() as session:
        queue.give_back(session, ticket)


def _send(ticket: queue.Ticket, **options: Any) -> None:
    from tasks.app import get_app

    get_app().send_task(
        task_name(ticket.job_type),
        args=(str(ticket.row_id), SCHEMA),
        task_id=str(ticket.row_id),
        queue=ticket.queue,
        parent_id=None if ticket.predecessor is None else str(ticket.predecessor),
        root_id=str(ticket.root),
        **({"DelaySeconds": ticket.delay} if ticket.delay else {}),
        **options,
    )


def leave_to_newer(sessions: Sessions, request: Context) -> bool:
    """Send a message of a newer release again, as it came, for a newer worker; returns whether it was sent.

    Not where its row has no use for it, nor where no such worker has come for long: after a way back to this
    release none ever does, and what the newer one has left would go round for ever.
    """
    from tasks.app import get_app

    with sessions.begin() as session:
        wanted = queue.still_wanted(session, UUID(request.id), patience=NEWER_PATIENCE)
    if not wanted:
        log.warning("message_of_newer_release_dropped", row_id=request.id)
        return False
    get_app().send_task(
        request.task,
        args=request.args,
        kwargs=request.kwargs,
        task_id=request.id,
        queue=request.delivery_info["routing_key"],
        parent_id=request.parent_id,
        root_id=request.root_id,
        DelaySeconds=NEWER_SCHEMA_DELAY,
    )
    return True


def publish_job(sessions: Sessions, job_id: UUID) -> bool:
    """Publish the row of a job that is due, if there is one."""
    with sessions() as session:
        row_id = queue.due_row(session, job_id)
    return row_id is not None and publish(sessions, row_id)


def copy_dead_letters(sessions: Sessions, settings: Settings, *, limit: int = 20) -> int:
    """Send a marked copy of every dead letter that has none to the SQS dead-letter queue.

    Called when one is written, and by the steward for those whose send was lost. Returns how many were sent.
    """
    sent = 0
    with queue.copying(sessions) as session:
        if session is None:  # somebody else does; the steward asks again in a moment
            return 0
        for letter in queue.without_copy(session, limit=limit):
            try:
                _send_copy(settings, letter)
            except ClientError as error:  # SQS refuses this one; the others can do nothing for it
                log.warning("dead_letter_copy_refused", dead_letter_id=str(letter.id), error=str(error))
            except (*BROKER_ERRORS, InfrastructureError) as error:
                log.warning("dead_letter_copy_failed", dead_letter_id=str(letter.id), error=str(error))
                break
            else:  # said at once: a crash after the send makes a second copy, and never none
                queue.mark_copied(session, [letter.id])
                sent += 1
    return sent


def _send_copy(settings: Settings, letter: DeadLetter) -> None:
    from tasks.queues import queues_of

    queues = queues_of(settings)
    target = Queue.EVENTS_DEAD_LETTER if letter.queue == Queue.EVENTS else Queue.DEAD_LETTER
    queues.client.send_message(
        QueueUrl=queues.url(target),
        MessageBody=json.dumps(_copy_of(letter)),
        MessageAttributes={COPY_MARK: {"DataType": "String", "StringValue": "copy"}},
    )


def _copy_of(letter: DeadLetter) -> dict[str, str | None]:
    """Ids and reasons; the row stays the truth, and a foreign body stays in the database."""
    ids = ("id", "row_id", "job_id", "media_item_id")
    return {
        **{name: None if getattr(letter, name) is None else str(getattr(letter, name)) for name in ids},
        "job_type": letter.job_type,
        "reason": letter.reason,
        "error_code": letter.error_code,
        "error_message": letter.error_message,
    }
