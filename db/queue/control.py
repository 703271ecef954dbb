"""What people and removals may do to a job: end it, start it again, move it. Final rows change only here."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from db import audit
from db.models import DeadLetter, MediaItem, ProcessingJob, QueueRow, Resolution
from db.models.base import is_in
from db.queue.enqueue import active_job_id
from db.queue.finish import end_rows, finish_job, lock_job, release_hash
from pipeline.errors import ConflictError, InvalidRequestError
from pipeline.queues import Queue, lane_for
from pipeline.states import DUE, JOB_FINAL, JobStatus, TaskStatus
from pipeline.workflows import StageName

#: Where a job waits because of its priority. A row in another queue is there because of its stage, and stays.
PRIORITY_LANES = (Queue.EXPRESS, Queue.STANDARD, Queue.BULK)
CANCELLED = "CANCELLED"  #: the error code of a job that somebody has ended


def cancel_job(session: Session, job_id: UUID, *, actor: str, reason: str) -> bool:
    """Make every row that is not final ``cancelled``, and the job with them.

    A stage that is running settles nothing: its token no longer holds the row. Returns False when the job was
    final.
    """
    job = lock_job(session, job_id)
    if job.status in JOB_FINAL:
        return False
    end_rows(session, job.id, TaskStatus.CANCELLED)
    job.error_code, job.error_message = CANCELLED, f"{actor} cancelled it: {reason}"
    finish_job(session, job, JobStatus.CANCELLED, {"reason": reason}, actor=actor)
    release_hash(session, job, promote=True)
    return True


def cancel_row(session: Session, row_id: UUID, *, actor: str, reason: str) -> bool:
    """Cancel the job that a row belongs to. Returns False when there is no such row, or its job was final."""
    job_id = session.scalar(select(QueueRow.job_id).where(QueueRow.id == row_id))
    return job_id is not None and cancel_job(session, job_id, actor=actor, reason=reason)


def retry_job(
    session: Session,
    job_id: UUID,
    *,
    actor: str,
    stage: StageName | None = None,
    reason: str | None = None,
) -> QueueRow:
    """Start a final job again from ``stage``, or from the first stage that did not complete.

    Budgets are new, tokens are not: what an old attempt still holds stays fenced. An item that does not hold
    its hash (a duplicate, or an original that failed) loses its link and starts no later than dedupe. The
    job's open dead letters are redriven with it. Returns the row that is due now.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: JOB_ACTIVE, ITEM_DELETED, or ITEM_BUSY when another job works on the item.
        InvalidRequestError: the workflow has no such stage.
    """
    job = lock_job(session, job_id)
    item = session.get_one(MediaItem, job.media_item_id, with_for_update=True, populate_existing=True)
    _ensure_retriable(session, job, item)
    first = _restart_at(session, job, item, stage)
    _revive_rows(session, first)
    job.status, job.completed_at, job.error_code, job.error_message = JobStatus.QUEUED, None, None, None
    job.warnings = []
    _close_letters(session, job_id, actor)
    audit.record(
        session,
        entity_type="processing_job",
        entity_id=job_id,
        action="job_retried",
        actor=actor,
        details={"from_stage": first.job_type, "reason": reason},
    )
    session.flush()
    session.refresh(first)
    return first


def _revive_rows(session: Session, first: QueueRow) -> None:
    for status, rows in (
        (TaskStatus.PENDING, QueueRow.position > first.position),
        (TaskStatus.QUEUED, QueueRow.id == first.id),
    ):
        session.execute(
            update(QueueRow)
            .where(QueueRow.job_id == first.job_id, rows)
            .values(status=status, **_FRESH)
            .execution_options(synchronize_session=False)
        )


def _close_letters(session: Session, job_id: UUID, actor: str) -> None:
    session.execute(
        update(DeadLetter)
        .where(DeadLetter.job_id == job_id, DeadLetter.resolved_at.is_(None))
        .values(resolution=Resolution.REDRIVEN, resolved_at=func.clock_timestamp(), resolved_by=actor)
    )


_FRESH = {
    "attempts": 0,
    "crashes": 0,
    "available_at": func.clock_timestamp(),
    "published_at": None,
    "lease_expires_at": None,
    "completed_at": None,
    "result": None,
    "error_code": None,
    "error_message": None,
}


def _ensure_retriable(session: Session, job: ProcessingJob, item: MediaItem) -> None:
    if job.status not in JOB_FINAL:
        raise ConflictError(
            f"Job {job.id} is {job.status}; only a job that has ended can be retried.", code="JOB_ACTIVE"
        )
    if item.deleted_at is not None:
        newer = exists().where(
            MediaItem.bucket == item.bucket, MediaItem.key == item.key, MediaItem.deleted_at.is_(None)
        )
        raise ConflictError(
            f"{item.key} was replaced by a newer upload, which has a job of its own."
            if session.scalar(select(newer))
            else f"{item.key} was deleted; upload it again instead.",
            code="ITEM_DELETED",
        )
    if (active := active_job_id(session, item.id, job.workflow_type)) is not None:
        raise ConflictError(
            f"Job {active} is at work on the same item; wait for it or cancel it.", code="ITEM_BUSY"
        )


def _restart_at(session: Session, job: ProcessingJob, item: MediaItem, stage: StageName | None) -> QueueRow:
    """The first row to run again: never one behind a row that did not complete."""
    rows = session.scalars(
        select(QueueRow)
        .where(QueueRow.job_id == job.id)
        .order_by(QueueRow.position)
        .execution_options(populate_existing=True)
    ).all()
    latest = [next((row for row in rows if row.status != TaskStatus.COMPLETED), rows[0])]
    if stage is not None:
        named = [row for row in rows if row.job_type == stage]
        if not named:
            raise InvalidRequestError(f"A {job.workflow_type} job has no stage {stage!r}.", field="stage")
        complete = all(row.status == TaskStatus.COMPLETED for row in rows)
        latest = named if complete else [*latest, *named]
    dedupe = [row for row in rows if row.job_type == StageName.DEDUPE]
    if dedupe and not item.holds_hash:
        item.duplicate_of_id = None
        latest += dedupe
    return min(latest, key=lambda row: row.position)


def change_priority(
    session: Session, job_id: UUID, priority: int, *, actor: str, reason: str | None = None
) -> bool:
    """Give a job that has not ended another priority, and its waiting rows the lane that goes with it.

    A stage that runs keeps its lane until it ends. A row that was published in the old lane is published
    again in the new one by the caller, after the commit; the old message becomes a copy, which claims the row
    or is dropped. Returns whether anything changed.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: JOB_ENDED.
        InvalidRequestError: the priority is none that exists.
    """
    lane, job = lane_for(priority), lock_job(session, job_id)
    if job.status in JOB_FINAL:
        raise ConflictError(f"Job {job.id} is {job.status}: nothing of it waits any more.", code="JOB_ENDED")
    if job.priority == priority:
        return False
    _move_waiting(session, job_id, lane)
    audit.record(
        session,
        entity_type="processing_job",
        entity_id=job_id,
        action="job_priority_changed",
        actor=actor,
        details={"from": job.priority, "to": priority, "queue": lane, "reason": reason},
    )
    job.priority = priority
    session.flush()
    return True


def _move_waiting(session: Session, job_id: UUID, lane: Queue) -> None:
    session.execute(
        update(QueueRow)
        .where(
            QueueRow.job_id == job_id,
            is_in(QueueRow.status, {TaskStatus.PENDING, *DUE}),
            is_in(QueueRow.queue, PRIORITY_LANES),
            QueueRow.queue != lane,
        )
        .values(queue=lane, published_at=None)
        .execution_options(synchronize_session=False)
    )
