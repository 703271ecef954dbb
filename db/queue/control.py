"""What people and removals may do to a job: end it, or start it again. A final row changes only here."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import audit
from db.models import MediaItem, PausedLane, ProcessingJob, QueueRow
from db.queue import originals
from db.queue.enqueue import active_job_id
from db.queue.finish import end_rows, finish_job, lock_job
from pipeline.errors import ConflictError, InvalidRequestError
from pipeline.states import JOB_FINAL, JobStatus, TaskStatus
from pipeline.workflows import StageName


def cancel_job(session: Session, job_id: UUID, *, actor: str, reason: str, promote: bool = True) -> bool:
    """Make every row that is not final ``cancelled``, and the job with them.

    A stage that is running settles nothing: its token no longer holds the row. Returns False when the job was
    final. ``promote`` is false where the caller releases the hash itself (a removal).
    """
    job = lock_job(session, job_id)
    if job.status in JOB_FINAL:
        return False
    end_rows(session, job.id, TaskStatus.CANCELLED)
    finish_job(session, job, JobStatus.CANCELLED, {"reason": reason}, actor=actor)
    if promote:
        originals.release(session, job.media_item_id, promote=True)
    return True


def retry_job(session: Session, job_id: UUID, *, actor: str, stage: StageName | None = None) -> QueueRow:
    """Start a final job again from ``stage``, or from the first stage that did not complete.

    Budgets are new, tokens are not: what an old attempt still holds stays fenced. An item that does not hold
    its hash (a duplicate, or an original that failed) loses its link and starts no later than dedupe.
    Returns the row that is due now.
    """
    job = lock_job(session, job_id)
    if job.status not in JOB_FINAL:
        raise ConflictError(f"Job {job_id} is {job.status}; only a job that has ended can be retried.")
    if (active := active_job_id(session, job.media_item_id, job.workflow_type)) is not None:
        raise ConflictError(f"Job {active} is at work on the same item; wait for it or cancel it.")
    rows = list(
        session.scalars(select(QueueRow).where(QueueRow.job_id == job_id).order_by(QueueRow.position))
    )
    first = _restart_at(session, job, rows, stage)
    session.execute(
        update(QueueRow)
        .where(QueueRow.job_id == job_id, QueueRow.position > first.position)
        .values(status=TaskStatus.PENDING, **_FRESH)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == first.id)
        .values(status=TaskStatus.QUEUED, **_FRESH)
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


def _restart_at(
    session: Session, job: ProcessingJob, rows: list[QueueRow], stage: StageName | None
) -> QueueRow:
    if stage is None:
        first = next((row for row in rows if row.status != TaskStatus.COMPLETED), rows[0])
    else:
        named = [row for row in rows if row.job_type == stage]
        if not named:
            raise InvalidRequestError(f"A {job.workflow_type} job has no stage {stage!r}.", field="stage")
        first = named[0]
    item = session.get_one(MediaItem, job.media_item_id, with_for_update=True)
    if item.deleted_at is not None:
        raise ConflictError(f"Media item {item.id} was deleted; upload it again instead.")
    dedupe = next((row for row in rows if row.job_type == StageName.DEDUPE), None)
    if dedupe is None or item.holds_hash:
        return first
    item.duplicate_of_id = None
    return min(first, dedupe, key=lambda row: row.position)


def pause_lane(session: Session, queue: str, *, actor: str, reason: str | None = None) -> None:
    """Start nothing more from ``queue``. Pausing a paused lane changes nothing."""
    if session.get(PausedLane, queue) is None:
        session.add(PausedLane(queue=queue, paused_by=actor, reason=reason))


def resume_lane(session: Session, queue: str) -> None:
    """Take the pause back; the steward publishes what is due."""
    paused = session.get(PausedLane, queue)
    if paused is not None:
        session.delete(paused)
