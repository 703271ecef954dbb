"""Who may send a row's message: a compare-and-set on ``published_at``, committed before the send."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, extract, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.models import QueueRow
from db.models.base import is_in
from pipeline.states import DUE, TaskStatus

SQS_MAX_DELAY = timedelta(minutes=15)
_NOBODY_WAS_TOLD = and_(is_in(QueueRow.status, DUE), QueueRow.published_at.is_(None))


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to send one message."""

    row_id: UUID
    job_type: str
    queue: str
    delay: int  #: seconds until the message becomes visible
    predecessor: UUID | None
    root: UUID  #: the job's first row
    published_at: datetime | None  #: what this publication wrote


def win_ticket(session: Session, row_id: UUID) -> Ticket | None:
    """Win the right to send the message of a row that nobody was told of: ``published_at`` from NULL to then.

    ``then`` is when the message becomes visible. None when somebody else has won, or the row is due too late
    for SQS and left to the steward.
    """
    return next(iter(_win(session, QueueRow.id == row_id, _NOBODY_WAS_TOLD)), None)


def win_tickets(session: Session, row_ids: Sequence[UUID]) -> list[Ticket]:
    """``win_ticket`` for many rows, in their order. What somebody has locked is left out, not waited for."""
    free = select(QueueRow.id).where(QueueRow.id.in_(row_ids)).with_for_update(skip_locked=True)
    won = {ticket.row_id: ticket for ticket in _win(session, QueueRow.id.in_(free), _NOBODY_WAS_TOLD)}
    return [won[row_id] for row_id in row_ids if row_id in won]


def win_copy(session: Session, row_id: UUID, *, seen: datetime | None) -> Ticket | None:
    """Win the right to send a copy: for a delivery that found its row not due or leased, or lost on its way.

    ``seen`` is the ``published_at`` that the caller decided by: it must have passed, and still be there.
    Past SQS's longest delay the row is left to the steward, with ``published_at`` cleared.
    """
    as_seen = and_(
        is_in(QueueRow.status, {*DUE, TaskStatus.PROCESSING}),
        QueueRow.published_at.is_not_distinct_from(seen),
        or_(QueueRow.published_at.is_(None), QueueRow.published_at <= func.clock_timestamp()),
    )
    ticket = next(iter(_win(session, QueueRow.id == row_id, as_seen)), None)
    if ticket is None:
        _leave_to_steward(session, row_id)
    return ticket


def _win(session: Session, rows: ColumnElement[bool], guard: ColumnElement[bool]) -> list[Ticket]:
    now = func.clock_timestamp()
    due_at = func.greatest(QueueRow.available_at, QueueRow.lease_expires_at, now)
    other = aliased(QueueRow)
    of_job = select(other.id).where(other.job_id == QueueRow.job_id)
    won = session.execute(
        update(QueueRow)
        .where(rows, due_at <= now + SQS_MAX_DELAY, guard)
        .values(published_at=due_at)
        .returning(
            QueueRow.id,
            QueueRow.job_type,
            QueueRow.queue,
            extract("epoch", QueueRow.published_at - now),
            of_job.where(other.position == QueueRow.position - 1).scalar_subquery(),
            of_job.where(other.position == 0).scalar_subquery(),
            QueueRow.published_at,
        )
        .execution_options(synchronize_session=False)
    )
    return [
        Ticket(row_id, job_type, queue, max(math.ceil(wait), 0), predecessor, root, published_at)
        for row_id, job_type, queue, wait, predecessor, root, published_at in won
    ]


def _leave_to_steward(session: Session, row_id: UUID) -> None:
    far = QueueRow.available_at > func.clock_timestamp() + SQS_MAX_DELAY
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id, is_in(QueueRow.status, DUE), far)
        .values(published_at=None)
    )


def give_back(session: Session, ticket: Ticket) -> None:
    """The send failed: say so, and the steward sends one. A newer publication stays."""
    session.execute(
        update(QueueRow)
        .where(
            QueueRow.id == ticket.row_id,
            is_in(QueueRow.status, DUE),
            QueueRow.published_at == ticket.published_at,
        )
        .values(published_at=None)
    )
