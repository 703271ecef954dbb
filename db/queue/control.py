"""What people and removals may do to a job: end it, or start it again. A final row changes only here."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import audit
from db.models import MediaItem, PausedLane, ProcessingJob, QueueRow
from db.queue.enqueue import active_job_id
from db.queue.finish import end_rows, finish_job, lock_job, release_hash
from pipeline.errors import ConflictError, InvalidRequestError
from pipeline.states import JOB_FINAL, JobStatus, TaskStatus
from pipeline.workflows import StageName


def cancel_job(session: Session, job_id: UUID, *, actor: str, reason: str) -> bool:
    """Make every row that is not final ``cancelled``, and the job with them.

    A stage that is running settles nothing: its token no longer holds the row. Returns False when the job was
    final.
    """
    job = lock_job(session, job_id)
    if job.status in JOB_FINAL:
        return False
    end_rows(session, job.id, TaskStatus.CANCELLED)
    finish_job(session, job, JobStatus.CANCELLED, {"reason": reason}, actor=actor)
    release_hash(session, job, promote=True)
    return True


def cancel_row(session: Session, row_id: UUID, *, actor: str, reason: str) -> bool:
    """Cancel the job that a row belongs to. Returns False when there is no such row, or its job was final."""
    job_id = session.scalar(select(QueueRow.job_id).where(QueueRow.id == row_id))
    return job_id is not None and cancel_job(session, job_id, actor=actor, reason=reason)


def retry_job(session: Session, job_id: UUID, *, actor: str, stage: StageName | None = None) -> QueueRow:
    """Start a final job again from ``stage``, or from the first stage that did not complete.

    Budgets are new, tokens are not: what an old attempt still holds stays fenced. An item that does not hold
    its hash (a duplicate, or an original that failed) loses its link and starts no later than dedupe.
    Returns the row that is due now.
    """
    job = lock_job(session, job_id)
    item = session.get_one(MediaItem, job.media_item_id, with_for_update=True, populate_existing=True)
    _ensure_retriable(session, job, item)
    first = _restart_at(session, job, item, stage)
    for status, rows in (
        (TaskStatus.PENDING, QueueRow.position > first.position),
        (TaskStatus.QUEUED, QueueRow.id == first.id),
    ):
        session.execute(
            update(QueueRow)
            .where(QueueRow.job_id == job_id, rows)
            .values(status=status, **_FRESH)
            .execution_options(synchronize_session=False)
        )
    job.status, job.completed_at, job.error_code, job.error_message = JobStatus.QUEUED, None, None, None
    job.warnings = []
    audit.record(
        session,
        entity_type="processing_job",
        entity_id=job_id,
        action="job_retried",
        actor=actor,
        details={"from_stage": first.job_type},
    )
    session.flush()
    session.refresh(first)
    return first


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
        raise ConflictError(f"Job {job.id} is {job.status}; only a job that has ended can be retried.")
    if item.deleted_at is not None:
        raise ConflictError(f"Media item {item.id} was deleted; upload it again instead.")
    if (active := active_job_id(session, item.id, job.workflow_type)) is not None:
        raise ConflictError(f"Job {active} is at work on the same item; wait for it or cancel it.")


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


def pause_lane(session: Session, queue: str, *, actor: str, reason: str | None = None) -> None:
    """Start nothing more from ``queue``. Pausing a paused lane changes nothing."""
    session.execute(
        insert(PausedLane).values(queue=queue, paused_by=actor, reason=reason).on_conflict_do_nothing()
    )


def resume_lane(session: Session, queue: str) -> None:
    """Take the pause back; the steward publishes what is due."""
    paused = session.get(PausedLane, queue)
    if paused is not None:
        session.delete(paused)
