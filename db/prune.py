"""Deleting what is old, in small batches: each call is one short transaction, and says how many went."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Delete, delete, exists, func, select
from sqlalchemy.orm import Session

from db.models import DeadLetter, ProcessingJob, Worker

JOBS, LETTERS, WORKERS = 100, 500, 500  #: rows a batch; a job takes its rows and attempts with it
#: How long a worker that says nothing any more is remembered.
KEEP_WORKERS = timedelta(days=1)


def finished_jobs(session: Session, *, keep: timedelta, limit: int = JOBS) -> int:
    """Delete jobs that ended more than ``keep`` ago, with their rows and attempts.

    A job that a dead letter waits to start again stays as long as the letter does.
    """
    awaited = exists().where(DeadLetter.job_id == ProcessingJob.id, DeadLetter.resolved_at.is_(None))
    # The job's row is locked first, as by every writer; one that somebody has is left for the next round.
    old = (
        select(ProcessingJob.id)
        .where(ProcessingJob.completed_at < func.clock_timestamp() - keep, ~awaited)
        .order_by(ProcessingJob.completed_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _run(session, delete(ProcessingJob).where(ProcessingJob.id.in_(old)))


def dead_letters(session: Session, *, keep: timedelta, limit: int = LETTERS) -> int:
    """Delete dead letters that were written more than ``keep`` ago, open or resolved."""
    old = (
        select(DeadLetter.id)
        .where(DeadLetter.created_at < func.clock_timestamp() - keep)
        .order_by(DeadLetter.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _run(session, delete(DeadLetter).where(DeadLetter.id.in_(old)))


def silent_workers(session: Session, *, keep: timedelta = KEEP_WORKERS, limit: int = WORKERS) -> int:
    """Forget workers that have said nothing for ``keep``."""
    old = (
        select(Worker.id)
        .where(Worker.last_seen_at < func.clock_timestamp() - keep)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _run(session, delete(Worker).where(Worker.id.in_(old)))


def _run(session: Session, statement: Delete) -> int:
    found = session.execute(statement.execution_options(synchronize_session=False))
    return int(found.rowcount)  # type: ignore[attr-defined]  # a DELETE has one
