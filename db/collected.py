"""What the steward needs to know of the messages that it finds on the SQS dead-letter queues."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.models import DeadLetter, DeadLetterReason
from pipeline.queues import Queue

#: SQS forgets a copy after this long, whatever we do.
COPIES_LIVE = timedelta(days=14)


def open_letters(session: Session, ids: Collection[UUID]) -> set[UUID]:
    """Those of ``ids`` that name a dead letter nobody has resolved: their copies stay."""
    found = session.scalars(
        select(DeadLetter.id).where(DeadLetter.id.in_(ids), DeadLetter.resolved_at.is_(None))
    )
    return set(found)


def keep_event(session: Session, body: str) -> DeadLetter:
    """Keep an S3 event that the listener could not use however often it came; a redrive sends it again."""
    letter = DeadLetter(
        queue=Queue.EVENTS,
        reason=DeadLetterReason.ATTEMPTS_EXHAUSTED,
        error_code="EVENT_UNUSABLE",
        error_message="SQS gave up on this S3 event, again and again; the listener's log says why it failed.",
        body=body,
    )
    session.add(letter)
    session.flush()
    return letter


def forget_copies(session: Session, queue: Queue, *, limit: int = 1000) -> int:
    """Say that ``queue`` has lost its copies of open letters; the steward sends them again.

    Returns how many; call it again until that is less than ``limit``.
    """
    of_events = DeadLetter.queue.is_not_distinct_from(Queue.EVENTS)
    lost = (
        select(DeadLetter.id)
        .where(
            of_events if queue is Queue.EVENTS_DEAD_LETTER else ~of_events,
            DeadLetter.dead_lettered_at > func.clock_timestamp() - COPIES_LIVE,
            DeadLetter.resolved_at.is_(None),
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    cleared = session.scalars(
        update(DeadLetter)
        .where(DeadLetter.id.in_(lost))
        .values(dead_lettered_at=None)
        .returning(DeadLetter.id)
        .execution_options(synchronize_session=False)
    )
    return len(cleared.all())
