"""Who may send a row's message: a compare-and-set on ``published_at``, committed before the send."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

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
    row = session.execute(
        select(
            QueueRow.job_id,
            QueueRow.position,
            func.greatest(QueueRow.available_at, QueueRow.lease_expires_at) - func.clock_timestamp(),
        ).where(QueueRow.id == row_id)
    ).one_or_none()
    if row is None:
        return None
    wait = max(row[2], timedelta())
    if wait > SQS_MAX_DELAY:
        session.execute(
            update(QueueRow).where(QueueRow.id == row_id, QueueRow.status.in_(DUE)).values(published_at=None)
        )
        return None
    won = session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id, _may_copy() if copy else _may_publish())
        .values(published_at=func.clock_timestamp() + wait)
        .returning(QueueRow.job_type, QueueRow.queue)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if won is None:
        return None
    ids = dict(
        session.execute(
            select(QueueRow.position, QueueRow.id).where(
                QueueRow.job_id == row.job_id, QueueRow.position.in_((0, row.position - 1))
            )
        )
        .tuples()
        .all()
    )
    return Ticket(
        row_id, won.job_type, won.queue, math.ceil(wait.total_seconds()), ids.get(row.position - 1), ids[0]
    )


def give_back(session: Session, row_id: UUID) -> None:
    """The send failed: say that no message was sent, so that the steward sends one."""
    session.execute(
        update(QueueRow).where(QueueRow.id == row_id, QueueRow.status.in_(DUE)).values(published_at=None)
    )


def _may_publish() -> ColumnElement[bool]:
    return and_(QueueRow.status.in_(DUE), QueueRow.published_at.is_(None))


def _may_copy() -> ColumnElement[bool]:
    passed = or_(QueueRow.published_at.is_(None), QueueRow.published_at <= func.clock_timestamp())
    return and_(QueueRow.status.in_((*DUE, TaskStatus.PROCESSING)), passed)
