"""The end of an attempt: one transaction, fenced by the token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal_column, select, update
from sqlalchemy.orm import Session

from db.models import Attempt, AuditEntry, DeadLetterReason, Outcome, QueueRow
from db.models.base import is_in
from db.queue.claim import Claimed
from db.queue.due import lane_again
from db.queue.finish import LONGEST_MESSAGE, GaveUp, advance, close_attempt, end_rows, give_up, lock_job
from pipeline.errors import DailiesError, InfrastructureError, PermanentStageError
from pipeline.retry import RetryPolicy
from pipeline.states import TaskStatus

RETRIED = "job_retried"  #: the audit entry of ``retry_job``
EVER: ColumnElement[datetime] = literal_column("'-infinity'::timestamptz")


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attempt cost, in milliseconds."""

    duration_ms: int
    cpu_ms: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What a stage's effect asks of the chain."""

    skip_rest: bool = False  #: the rows after this one do not apply
    summary: dict[str, Any] = field(default_factory=dict)  #: for the audit entry, if the job ends here


@dataclass(frozen=True, slots=True)
class Settled:
    """The attempt's success is in the database. ``successor`` is due now, or None at the end of the chain."""

    successor: UUID | None


@dataclass(frozen=True, slots=True)
class Again:
    """The attempt's failure is in the database; the row is due again after ``delay``."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Fenced:
    """The row is not ours any more: nothing was changed."""


def complete(
    session: Session,
    claim: Claimed,
    *,
    effect: Callable[[Session], Effect],
    result: dict[str, Any],
    version: str,
    warnings: tuple[str, ...] = (),
    cost: Cost,
) -> Settled | Fenced:
    """Settle a success: the row, the stage's effect, the successor, the job, the audit entry if it ends."""
    job = lock_job(session, claim.job_id)
    position = _complete_row(session, claim, result, version)
    if position is None:
        return Fenced()
    close_attempt(session, claim.token, Outcome.COMPLETED, duration_ms=cost.duration_ms, cpu_ms=cost.cpu_ms)
    if warnings:
        job.warnings = [*job.warnings, *warnings]
    outcome = effect(session)
    if outcome.skip_rest:
        end_rows(session, job.id, TaskStatus.SKIPPED)
    return Settled(advance(session, job, position, outcome.summary))


def _complete_row(session: Session, claim: Claimed, result: dict[str, Any], version: str) -> int | None:
    """The compare-and-set of a success; returns the row's position, or None when it is not ours any more."""
    return session.scalar(
        update(QueueRow)
        .where(*_ours(claim))
        .values(
            status=TaskStatus.COMPLETED,
            completed_at=func.clock_timestamp(),
            lease_expires_at=None,
            result=result,
            processor_version=version,
        )
        .returning(QueueRow.position)
        .execution_options(synchronize_session=False)
    )


def fail(
    session: Session, claim: Claimed, error: DailiesError, policy: RetryPolicy, *, cost: Cost
) -> Again | GaveUp | Fenced:
    """Settle a failure: due again by ``policy``, or given up on."""
    job = lock_job(session, claim.job_id)
    held = session.execute(
        select(QueueRow.attempts, QueueRow.max_attempts).where(*_ours(claim)).with_for_update()
    ).one_or_none()
    if held is None:
        return Fenced()
    # The row's own budget holds: two releases with other settings may run side by side.
    budget = replace(policy, max_attempts=held.max_attempts)
    free = isinstance(error, InfrastructureError)
    wait = budget.delay_for(_all_tries(session, claim) if free else held.attempts + 1, error)
    close_attempt(
        session,
        claim.token,
        Outcome.FAILED if wait is None else Outcome.RETRYING,
        error=(error.code, error.message),
        duration_ms=cost.duration_ms,
        cpu_ms=cost.cpu_ms,
    )
    _change_row(session, claim, attempts=held.attempts + (0 if free else 1))
    if wait is None:
        permanent = isinstance(error, PermanentStageError)
        reason = DeadLetterReason.PERMANENT_ERROR if permanent else DeadLetterReason.ATTEMPTS_EXHAUSTED
        return give_up(session, job, claim.row_id, reason=reason, error=(error.code, error.message))
    _change_row(
        session,
        claim,
        status=TaskStatus.RETRYING,
        queue=lane_again(job),
        available_at=func.clock_timestamp() + wait,
        published_at=None,
        lease_expires_at=None,
        error_code=error.code,
        error_message=error.message[:LONGEST_MESSAGE],
    )
    return Again(wait)


def _change_row(session: Session, claim: Claimed, **values: Any) -> None:
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == claim.row_id)
        .values(values)
        .execution_options(synchronize_session=False)
    )


def _ours(claim: Claimed) -> tuple[ColumnElement[bool], ...]:
    """The fence: this row, this token, still processing."""
    return (
        QueueRow.id == claim.row_id,
        QueueRow.token == claim.token,
        is_in(QueueRow.status, {TaskStatus.PROCESSING}),
    )


def _all_tries(session: Session, claim: Claimed) -> int:
    """How often the row was tried since its job was last started again, for the backoff of free errors."""
    again = select(func.max(AuditEntry.created_at)).where(
        AuditEntry.entity_type == "processing_job",
        AuditEntry.entity_id == claim.job_id,
        AuditEntry.action == RETRIED,
    )
    counted = session.scalar(
        select(func.count())
        .select_from(Attempt)
        .where(
            Attempt.row_id == claim.row_id, Attempt.started_at > func.coalesce(again.scalar_subquery(), EVER)
        )
    )
    return max(counted or 1, 1)
