"""Dead letters: what was given up on or was never ours, and whether SQS has a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import audit
from db.models import DeadLetter, DeadLetterReason, Resolution
from db.queue.control import retry_job
from db.queue.finish import LONGEST_MESSAGE, lock_job
from db.session import Sessions
from pipeline.errors import ConflictError, DailiesError, NotFoundError
from pipeline.queues import Queue
from pipeline.states import JobStatus
from pipeline.workflows import StageName, stages_of

COPYING = 7_402_010  #: the advisory lock of whoever sends copies


@dataclass(frozen=True, slots=True)
class Redriven:
    """The letter's job was started again; its row ``row_id`` is due, and not published yet."""

    row_id: UUID
    job_id: UUID
    stage: StageName


@dataclass(frozen=True, slots=True)
class Resend:
    """The letter is an S3 event: ``body`` goes to the events queue again, before the caller commits."""

    body: str


def keep_foreign(session: Session, *, source: str | None, body: str, error: DailiesError) -> DeadLetter:
    """Keep a message that is not ours, with the reason, so that nothing that arrived is lost."""
    letter = DeadLetter(
        queue=source,
        reason=DeadLetterReason.NOT_OURS,
        error_code=error.code,
        error_message=error.message[:LONGEST_MESSAGE],
        body=body,
    )
    session.add(letter)
    session.flush()
    return letter


@contextmanager
def copying(sessions: Sessions) -> Iterator[Session | None]:
    """The right to send copies, for the block; None while somebody else has it.

    A send may take long, so no transaction is open meanwhile: in this session each statement is one.
    """
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        if not session.scalar(select(func.pg_try_advisory_lock(COPYING))):
            yield None
            return
        try:
            yield session
        finally:
            session.execute(select(func.pg_advisory_unlock(COPYING)))


def without_copy(session: Session, *, limit: int) -> Sequence[DeadLetter]:
    """Open letters of which SQS has no copy yet, oldest first."""
    return session.scalars(
        select(DeadLetter)
        .where(DeadLetter.dead_lettered_at.is_(None), DeadLetter.resolved_at.is_(None))
        .order_by(DeadLetter.id)
        .limit(limit)
    ).all()


def mark_copied(session: Session, ids: Sequence[UUID]) -> None:
    """Say that SQS has a copy of each."""
    session.execute(
        update(DeadLetter).where(DeadLetter.id.in_(ids)).values(dead_lettered_at=func.clock_timestamp())
    )


def redrive_letter(
    session: Session, letter_id: UUID, *, actor: str, reason: str | None = None, from_start: bool = False
) -> Redriven | Resend:
    """Give what was given up on another chance: its job from the stage that failed, or ``from_start``.

    Raises:
        NotFoundError: there is no such letter.
        ConflictError: ALREADY_RESOLVED; JOB_COMPLETED; JOB_GONE; FOREIGN_MESSAGE for what is no event and
            names no row; what ``retry_job`` raises.
    """
    letter = _letter(session, letter_id)
    if letter.job_id is None:
        return _redrive_foreign(session, letter_id, actor=actor, reason=reason)
    job = lock_job(session, letter.job_id)
    _ensure_open(_letter(session, letter_id))  # again: before the lock, somebody else may have been faster
    if job.status == JobStatus.COMPLETED:  # by a retry of a release that did not resolve letters
        raise ConflictError(f"Job {job.id} has completed since; purge the letter.", code="JOB_COMPLETED")
    first = stages_of(job.workflow_type)[0] if from_start else None
    row = retry_job(session, job.id, actor=actor, stage=first, reason=reason)
    _tell(session, letter, "dead_letter_redriven", actor=actor, reason=reason)
    return Redriven(row.id, row.job_id, StageName(row.job_type))


def _redrive_foreign(session: Session, letter_id: UUID, *, actor: str, reason: str | None) -> Resend:
    letter = _letter(session, letter_id, lock=True)
    _ensure_open(letter)
    if letter.queue != Queue.EVENTS or not letter.body:
        if letter.reason == DeadLetterReason.NOT_OURS:
            sentence = "The message names no row of ours, so there is nothing to run; purge it."
            raise ConflictError(sentence, code="FOREIGN_MESSAGE")
        raise ConflictError("Its job was pruned; start a new one for the file.", code="JOB_GONE")
    _resolve(session, letter, Resolution.REDRIVEN, actor)
    _tell(session, letter, "dead_letter_redriven", actor=actor, reason=reason)
    return Resend(letter.body)


def purge_letter(session: Session, letter_id: UUID, *, actor: str, reason: str | None = None) -> None:
    """Say that nobody has a use for a letter. It stays readable until it is pruned by age; its job stays.

    Purging a purged one changes nothing.

    Raises:
        NotFoundError: there is no such letter.
        ConflictError: ALREADY_RESOLVED, when it was redriven.
    """
    letter = _letter(session, letter_id, lock=True)
    if letter.resolution == Resolution.PURGED:
        return
    _ensure_open(letter)
    _resolve(session, letter, Resolution.PURGED, actor)
    _tell(session, letter, "dead_letter_purged", actor=actor, reason=reason)


def _letter(session: Session, letter_id: UUID, *, lock: bool = False) -> DeadLetter:
    letter = session.get(DeadLetter, letter_id, with_for_update=lock or None, populate_existing=True)
    if letter is None:
        raise NotFoundError(f"There is no dead letter {letter_id}.")
    return letter


def _ensure_open(letter: DeadLetter) -> None:
    if letter.resolution is not None:
        raise ConflictError(
            f"Dead letter {letter.id} was {letter.resolution} by {letter.resolved_by} already.",
            code="ALREADY_RESOLVED",
        )


def _resolve(session: Session, letter: DeadLetter, resolution: Resolution, actor: str) -> None:
    session.execute(
        update(DeadLetter)
        .where(DeadLetter.id == letter.id)
        .values(resolution=resolution, resolved_at=func.clock_timestamp(), resolved_by=actor)
    )


def _tell(session: Session, letter: DeadLetter, action: str, *, actor: str, reason: str | None) -> None:
    audit.record(
        session,
        entity_type="dead_letter",
        entity_id=letter.id,
        action=action,
        actor=actor,
        details={
            "job_id": None if letter.job_id is None else str(letter.job_id),
            "error_code": letter.error_code,
            "stage": letter.job_type,
            "reason": reason,
        },
    )
    session.flush()
