"""What the steward does with rows: leases that ended without a word, rows that nobody was told of."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, select, update
from sqlalchemy.orm import Session

from db.models import DeadLetterReason, Outcome, PausedLane, QueueRow
from db.models.base import is_in
from db.queue.finish import close_attempt, give_up, lock_job
from pipeline.states import DUE, TaskStatus

LOST = ("WORKER_LOST", "The process that worked on this stage ended without a word, as often as it may.")


def expired(session: Session, *, limit: int = 100) -> list[tuple[UUID, int]]:
    """Rows (id, token) whose lease has ended, oldest first."""
    found = session.execute(
        select(QueueRow.id, QueueRow.token)
        .where(_lease_ended())
        .order_by(QueueRow.lease_expires_at)
        .limit(limit)
    )
    return [(row_id, token) for row_id, token in found if token is not None]


def release_expired(session: Session, row_id: UUID, token: int | None) -> bool:
    """Release one row by compare-and-set on (id, token, processing, lease still ended).

    It costs a crash. The row is due again, or failed as ``worker_lost`` when that was its last.
    Returns False when the row had moved on.
    """
    job_id = session.scalar(select(QueueRow.job_id).where(QueueRow.id == row_id))
    if job_id is None or token is None:
        return False
    job = lock_job(session, job_id)
    row = session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id, QueueRow.token == token, _lease_ended())
        .values(crashes=QueueRow.crashes + 1)
        .returning(QueueRow.crashes, QueueRow.max_crashes)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return False
    close_attempt(session, token, Outcome.LOST, error=("LEASE_EXPIRED", "The lease ended without a word."))
    if row.crashes >= row.max_crashes:
        give_up(session, job, row_id, reason=DeadLetterReason.WORKER_LOST, error=LOST)
        return True
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id)
        .values(
            status=TaskStatus.QUEUED,
            available_at=func.clock_timestamp(),
            published_at=None,
            lease_expires_at=None,
        )
        .execution_options(synchronize_session=False)
    )
    return True


def unpublished(session: Session, *, horizon: timedelta, limit: int = 500) -> list[UUID]:
    """Rows due within ``horizon`` that were never published, in lanes that are not paused; oldest first."""
    found = session.scalars(
        select(QueueRow.id)
        .where(
            is_in(QueueRow.status, DUE),
            QueueRow.published_at.is_(None),
            QueueRow.available_at <= func.clock_timestamp() + horizon,
            ~_paused(),
        )
        .order_by(QueueRow.available_at)
        .limit(limit)
    )
    return list(found)


def waiting_since(
    session: Session, queue: str, *, wait: timedelta, limit: int = 100
) -> list[tuple[UUID, datetime | None]]:
    """Due rows (id, published_at) of ``queue`` that were published and have waited longer than ``wait``.

    What waits in an empty queue was lost on the way: the steward publishes it again.
    """
    since = func.greatest(QueueRow.published_at, QueueRow.available_at)
    found = session.execute(
        select(QueueRow.id, QueueRow.published_at)
        .where(
            QueueRow.queue == queue,
            is_in(QueueRow.status, DUE),
            QueueRow.published_at.is_not(None),
            since < func.clock_timestamp() - wait,
            ~_paused(),
        )
        .order_by(since)
        .limit(limit)
    )
    return [(row_id, published_at) for row_id, published_at in found]


def _lease_ended() -> ColumnElement[bool]:
    return and_(
        is_in(QueueRow.status, {TaskStatus.PROCESSING}), QueueRow.lease_expires_at <= func.clock_timestamp()
    )


def _paused() -> ColumnElement[bool]:
    return exists().where(PausedLane.queue == QueueRow.queue)
