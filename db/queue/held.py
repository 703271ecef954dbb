"""Rows that a worker holds: kept, looked at, and given back for a process that died or was told to stop."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.models import QueueRow
from db.models.base import is_in
from db.queue.finish import lock_job
from db.queue.rescue import give_back_row
from pipeline.states import TaskStatus

PROCESSING = {TaskStatus.PROCESSING}


def heartbeat(session: Session, row_id: UUID, token: int, *, lease: timedelta | None) -> bool:
    """Whether the row is still held by ``token``; with ``lease`` it is held for that long from now on."""
    ours = (QueueRow.id == row_id, QueueRow.token == token, is_in(QueueRow.status, PROCESSING))
    if lease is None:
        return session.scalar(select(QueueRow.id).where(*ours)) is not None
    held = session.scalar(
        update(QueueRow)
        .where(*ours)
        .values(lease_expires_at=func.clock_timestamp() + lease)
        .returning(QueueRow.id)
        .execution_options(synchronize_session=False)
    )
    return held is not None


def release_held(session: Session, row_id: UUID, worker: str, *, crash: bool, error: tuple[str, str]) -> bool:
    """Release the row that the pool process ``worker`` was at work on when it ended.

    ``crash``: it died, which costs a crash and fails the row where that was its last; otherwise it was
    told to stop, which costs nothing. ``error`` is the attempt's code and sentence. Returns False when the
    process did not hold the row any more.
    """
    found = session.execute(
        select(QueueRow.job_id, QueueRow.token).where(
            QueueRow.id == row_id, QueueRow.worker == worker, is_in(QueueRow.status, PROCESSING)
        )
    ).one_or_none()
    if found is None or found.token is None:
        return False
    job = lock_job(session, found.job_id)
    return give_back_row(session, job, row_id, found.token, crash=crash, error=error)
