"""How rows and jobs end. Called by settle, rescue and cancel, in a transaction that holds the job's row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from db import audit
from db.models import Attempt, DeadLetter, DeadLetterReason, MediaItem, Outcome, ProcessingJob, QueueRow
from db.models.base import is_in
from db.queue import originals
from pipeline.errors import NotFoundError
from pipeline.states import ACTIVE, JobStatus, TaskStatus, sources_of
from pipeline.workflows import StageName, stages_of

LONGEST_MESSAGE = 2_000  #: characters of an error that are kept


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The row will not be tried again.

    Its job has failed, and ``dead_letter_id`` says why; or the stage was optional, and ``successor`` is due
    now (None at the end of the chain).
    """

    dead_letter_id: UUID | None
    successor: UUID | None = None


def lock_job(session: Session, job_id: UUID) -> ProcessingJob:
    """The job's row, locked until the transaction ends: the first lock of every writer.

    Raises NotFoundError when there is no such job.
    """
    job = session.get(ProcessingJob, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFoundError(f"There is no job {job_id}.")
    return job


def close_attempt(
    session: Session,
    token: int,
    outcome: Outcome,
    *,
    error: tuple[str, str] | None = None,
    duration_ms: int | None = None,
    cpu_ms: int | None = None,
) -> None:
    """Write how the attempt ended, once; ``error`` is code and sentence."""
    session.execute(
        update(Attempt)
        .where(Attempt.token == token, Attempt.outcome.is_(None))
        .values(
            finished_at=func.clock_timestamp(),
            outcome=outcome,
            error_code=error[0] if error else None,
            error_message=error[1][:LONGEST_MESSAGE] if error else None,
            duration_ms=duration_ms,
            cpu_ms=cpu_ms,
        )
        .execution_options(synchronize_session=False)
    )


def end_rows(session: Session, job_id: UUID, status: TaskStatus) -> int:
    """Move every row of the job that is not final to ``status``; returns how many moved."""
    moved = session.execute(
        update(QueueRow)
        .where(QueueRow.job_id == job_id, is_in(QueueRow.status, sources_of(status)))
        .values(status=status, completed_at=func.clock_timestamp(), lease_expires_at=None)
        .returning(QueueRow.token)
        .execution_options(synchronize_session=False)
    ).all()
    for (token,) in moved:
        if token is not None:
            close_attempt(session, token, Outcome.CANCELLED)
    return len(moved)


def give_up(
    session: Session, job: ProcessingJob, row_id: UUID, *, reason: DeadLetterReason, error: tuple[str, str]
) -> GaveUp:
    """End a row that is processing and may not be tried again; ``error`` is code and sentence.

    Its job fails with it: rows after it cancelled, a dead letter, one summary. Where the stage is optional
    the row is skipped instead, with a warning on the job, and the chain goes on.
    """
    code, message = error[0], error[1][:LONGEST_MESSAGE]
    row = session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id)
        .values(
            status=case((QueueRow.optional, TaskStatus.SKIPPED), else_=TaskStatus.FAILED),
            completed_at=func.clock_timestamp(),
            lease_expires_at=None,
            error_code=code,
            error_message=message,
        )
        .returning(QueueRow.queue, QueueRow.job_type, QueueRow.position, QueueRow.optional)
        .execution_options(synchronize_session=False)
    ).one()
    if row.optional:
        job.warnings = [*job.warnings, f"{row.job_type} was left out: {message} ({code})"]
        return GaveUp(None, advance(session, job, row.position, {}))
    letter = DeadLetter(
        row_id=row_id,
        job_id=job.id,
        media_item_id=job.media_item_id,
        queue=row.queue,
        job_type=row.job_type,
        reason=reason,
        error_code=code,
        error_message=message,
    )
    session.add(letter)
    _fail_job(session, job, letter)
    return GaveUp(letter.id)


def _fail_job(session: Session, job: ProcessingJob, letter: DeadLetter) -> None:
    end_rows(session, job.id, TaskStatus.CANCELLED)
    job.error_code, job.error_message = letter.error_code, letter.error_message
    finish_job(session, job, JobStatus.FAILED, {"failed_stage": letter.job_type, "reason": letter.reason})
    # Equal bytes fail alike: after a permanent error no duplicate takes the original's place.
    release_hash(session, job, promote=letter.reason != DeadLetterReason.PERMANENT_ERROR)
    session.flush()


def advance(session: Session, job: ProcessingJob, position: int, summary: dict[str, Any]) -> UUID | None:
    """Make the successor due, from pending and only from there; end the job when nothing is left."""
    successor = session.scalar(
        update(QueueRow)
        .where(
            QueueRow.job_id == job.id,
            QueueRow.position == position + 1,
            QueueRow.status == TaskStatus.PENDING,
        )
        .values(status=TaskStatus.QUEUED, available_at=func.clock_timestamp(), published_at=None)
        .returning(QueueRow.id)
        .execution_options(synchronize_session=False)
    )
    if successor is None and not _any_active(session, job.id):
        finish_job(session, job, JobStatus.COMPLETED, summary)
    return successor


def _any_active(session: Session, job_id: UUID) -> bool:
    living = select(QueueRow.id).where(QueueRow.job_id == job_id, is_in(QueueRow.status, ACTIVE))
    return session.scalar(living.limit(1)) is not None


def release_hash(session: Session, job: ProcessingJob, *, promote: bool) -> None:
    """Take the hash from the job's item, if it was this job's to give: not if it never dedupes."""
    if StageName.DEDUPE in stages_of(job.workflow_type):
        originals.release(session, job.media_item_id, promote=promote)


def finish_job(
    session: Session, job: ProcessingJob, status: JobStatus, details: dict[str, Any], *, actor: str = "system"
) -> None:
    """Make the job final and write its one audit summary."""
    # Together: a flush between the two would offend the table.
    job.completed_at, job.status = session.scalar(select(func.clock_timestamp())), status
    item = session.get_one(MediaItem, job.media_item_id)
    audit.record(
        session,
        entity_type="processing_job",
        entity_id=job.id,
        action=f"job_{status}",
        actor=actor,
        details={
            "workflow_type": job.workflow_type,
            "media_item_id": str(item.id),
            "bucket": item.bucket,
            "key": item.key,
            "error_code": job.error_code,
            "error_message": job.error_message,
            "warnings": job.warnings,
            "stages": _stages(session, job.id),
            **details,
        },
    )
    session.flush()


def _stages(session: Session, job_id: UUID) -> list[dict[str, Any]]:
    """Each stage with how it ended and what its attempts cost."""
    found = session.execute(
        select(
            QueueRow.job_type,
            QueueRow.status,
            QueueRow.processor_version,
            func.count(Attempt.token),
            func.sum(Attempt.duration_ms),
        )
        .outerjoin(Attempt, Attempt.row_id == QueueRow.id)
        .where(QueueRow.job_id == job_id)
        .group_by(QueueRow.id)
        .order_by(QueueRow.position)
    )
    return [
        {
            "stage": stage,
            "status": status,
            "version": version,
            "tries": tries,
            "ms": None if ms is None else int(ms),
        }
        for stage, status, version, tries, ms in found
    ]
