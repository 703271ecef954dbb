"""Who may send a row's message: a compare-and-set on ``published_at``, committed before the send."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, extract, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.models import QueueRow
from pipeline.states import DUE, TaskStatus

SQS_MAX_DELAY = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to send one message."""

    row_id: UUID
    job_type: str
    queue: str
    delay: int  #: seconds until the message becomes visible
    predecessor: UUID | None
    root: UUID  #: the job's first row


def win_ticket(session: Session, row_id: UUID, *, copy: bool = False) -> Ticket | None:
    """Win the right to send the row's message, or None when somebody else has it, or it is due too late.

    ``published_at`` goes from NULL to when the message becomes visible. A ``copy`` (for a row that a delivery
    found not due, or leased) also replaces a value that has passed. Past SQS's longest delay the row is left
    to the steward, with ``published_at`` cleared.
    """
    now = func.clock_timestamp()
    due_at = func.greatest(QueueRow.available_at, QueueRow.lease_expires_at, now)
    other = aliased(QueueRow)
    of_job = select(other.id).where(other.job_id == QueueRow.job_id)
    won = session.execute(
        update(QueueRow)
        .where(
            QueueRow.id == row_id,
            due_at <= now + SQS_MAX_DELAY,
            _may_copy(row_id) if copy else _may_publish(),
        )
        .values(published_at=due_at)
        .returning(
            QueueRow.job_type,
            QueueRow.queue,
            extract("epoch", QueueRow.published_at - now),
            of_job.where(other.position == QueueRow.position - 1).scalar_subquery(),
            of_job.where(other.position == 0).scalar_subquery(),
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if won is None:
        if copy:
            _leave_to_steward(session, row_id)
        return None
    job_type, queue, wait, predecessor, root = won
    return Ticket(row_id, job_type, queue, max(math.ceil(wait), 0), predecessor, root)


def _leave_to_steward(session: Session, row_id: UUID) -> None:
    far = QueueRow.available_at > func.clock_timestamp() + SQS_MAX_DELAY
    session.execute(
        update(QueueRow).where(QueueRow.id == row_id, QueueRow.status.in_(DUE), far).values(published_at=None)
    )


def give_back(session: Session, row_id: UUID) -> None:
    """The send failed: say that no message was sent, so that the steward sends one."""
    session.execute(
        update(QueueRow).where(QueueRow.id == row_id, QueueRow.status.in_(DUE)).values(published_at=None)
    )


def _may_publish() -> ColumnElement[bool]:
    return and_(QueueRow.status.in_(DUE), QueueRow.published_at.is_(None))


def _may_copy(row_id: UUID) -> ColumnElement[bool]:
    """The value that this statement's snapshot saw has passed, and is still there when its turn comes."""
    seen = aliased(QueueRow)
    snapshot = select(seen.published_at).where(seen.id == row_id).scalar_subquery()
    return and_(
        QueueRow.status.in_((*DUE, TaskStatus.PROCESSING)),
        QueueRow.published_at.is_not_distinct_from(snapshot),
        or_(QueueRow.published_at.is_(None), QueueRow.published_at <= func.clock_timestamp()),
    )
