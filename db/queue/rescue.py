"""What the steward does with rows that somebody took, or should have taken, and that nobody ended."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, insert, select, text, update
from sqlalchemy.orm import Session

from db import marks
from db.models import TOKEN, Attempt, DeadLetterReason, Outcome, ProcessingJob, QueueRow
from db.models.base import is_in
from db.queue.due import forget, in_paused_lane, lane_again
from db.queue.finish import close_attempt, give_up, lock_job
from pipeline.states import TaskStatus, sources_of

STEWARD = "steward"
LOST = ("WORKER_LOST", "The process that worked on this stage ended without a word, as often as it may.")
SILENT = ("LEASE_EXPIRED", "The lease ended without a word.")
OUTAGE = ("OUTAGE", "The lease ended while the database was away, and could not be renewed.")
UNDELIVERED = (
    "UNDELIVERED",
    "SQS gave up on the row's message: every worker that received it lost it again.",
)
UNASKED = ("OUTAGE", "SQS gave up on the row's message; the database was away while it was on its way.")


def expired(session: Session, *, limit: int = 100) -> list[tuple[UUID, int]]:
    """Rows (id, token) whose lease has ended, oldest first."""
    found = session.execute(
        select(QueueRow.id, QueueRow.token)
        .where(_lease_ended())
        .order_by(QueueRow.lease_expires_at)
        .limit(limit)
    )
    return [(row_id, token) for row_id, token in found if token is not None]


def release_expired(
    session: Session, row_id: UUID, token: int | None, *, spared_until: datetime | None = None
) -> bool:
    """Release one row by compare-and-set on (id, token, processing, lease still ended).

    It costs a crash, and the row is due again, or failed as ``worker_lost`` when that was its last. A lease
    that ended by ``spared_until`` could not be renewed, because the database was away: it costs nothing.
    Returns False when the row had moved on.
    """
    job_id = session.scalar(select(QueueRow.job_id).where(QueueRow.id == row_id))
    if job_id is None or token is None:
        return False
    # The steward has many rows, and is in a hurry: one that somebody has locked waits for the next round.
    session.execute(text("SET LOCAL lock_timeout = '1s'"))
    job = lock_job(session, job_id)
    ended_at = session.scalar(
        select(QueueRow.lease_expires_at).where(QueueRow.id == row_id, _lease_ended()).with_for_update()
    )
    if ended_at is None:
        return False
    spared = spared_until is not None and ended_at <= spared_until
    return give_back_row(session, job, row_id, token, crash=not spared, error=OUTAGE if spared else SILENT)


def give_back_row(
    session: Session, job: ProcessingJob, row_id: UUID, token: int, *, crash: bool, error: tuple[str, str]
) -> bool:
    """Take a row from the holder of ``token``, by compare-and-set on (id, token, processing).

    The caller has locked the job's row. With ``crash`` it costs one, and the row fails as ``worker_lost``
    when that was its last; otherwise it is due again at once. ``error`` is the attempt's code and sentence.
    Returns False when the row had moved on.
    """
    row = session.execute(
        update(QueueRow)
        .where(
            QueueRow.id == row_id, QueueRow.token == token, is_in(QueueRow.status, {TaskStatus.PROCESSING})
        )
        .values(crashes=QueueRow.crashes + int(crash))
        .returning(QueueRow.crashes, QueueRow.max_crashes)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return False
    close_attempt(session, token, Outcome.LOST if crash else Outcome.RELEASED, error=error)
    if crash and row.crashes >= row.max_crashes:
        give_up(session, job, row_id, reason=DeadLetterReason.WORKER_LOST, error=LOST)
        return True
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id)
        .values(
            status=TaskStatus.QUEUED,
            queue=lane_again(job),
            available_at=func.clock_timestamp(),
            published_at=None,
            lease_expires_at=None,
        )
        .execution_options(synchronize_session=False)
    )
    return True


def charge_undelivered(session: Session, row_id: UUID, *, sent_at: datetime | None = None) -> bool:
    """Count a crash for a row whose message, sent at ``sent_at``, SQS has moved to its dead-letter queue.

    The row is due again, or failed as ``worker_lost`` when that was its last crash, through the same function
    as any failure: the steward claims it and gives it back. It costs nothing when the database was away since
    the message was sent, nor for a row that is not due or paused. Returns False when no row has this id.
    """
    job_id = session.scalar(select(QueueRow.job_id).where(QueueRow.id == row_id))
    if job_id is None:
        return False
    job = lock_job(session, job_id)
    taken = session.execute(
        update(QueueRow)
        .where(
            QueueRow.id == row_id,
            is_in(QueueRow.status, sources_of(TaskStatus.PROCESSING)),
            QueueRow.available_at <= func.clock_timestamp(),
            ~in_paused_lane(),
        )
        .values(
            status=TaskStatus.PROCESSING,
            token=TOKEN.next_value(),
            worker=STEWARD,
            started_at=func.clock_timestamp(),
            lease_expires_at=func.clock_timestamp(),
        )
        .returning(QueueRow.token, QueueRow.published_at)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None or taken.token is None:
        forget(session, QueueRow.id == row_id, QueueRow.published_at <= func.clock_timestamp())
        return True
    session.execute(insert(Attempt).values(token=taken.token, row_id=row_id, worker=STEWARD))
    known = [at for at in (sent_at, taken.published_at) if at is not None]
    away = marks.get(session, marks.RECOVERED)
    spared = away is not None and bool(known) and away.at > min(known)
    return give_back_row(
        session, job, row_id, taken.token, crash=not spared, error=UNASKED if spared else UNDELIVERED
    )


def held_tokens(session: Session, tokens: Collection[int]) -> set[int]:
    """Those of ``tokens`` that hold a row now."""
    found = session.scalars(
        select(QueueRow.token).where(
            QueueRow.token.in_(tokens), is_in(QueueRow.status, {TaskStatus.PROCESSING})
        )
    )
    return {token for token in found if token is not None}


def _lease_ended() -> ColumnElement[bool]:
    return and_(
        is_in(QueueRow.status, {TaskStatus.PROCESSING}), QueueRow.lease_expires_at <= func.clock_timestamp()
    )
