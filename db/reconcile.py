"""What the rows say about drift: each question is bounded, counts to a thousand and names a few."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from db.models import DeadLetter, ProcessingJob, QueueRow
from db.models.base import is_in
from db.queue.due import in_paused_lane
from pipeline.states import ACTIVE, DUE, JOB_ACTIVE, JOB_FINAL, TaskStatus

MOST, SAMPLES = 1_000, 5


@dataclass(frozen=True, slots=True)
class Found:
    """How many there are, and some of them."""

    count: int
    more: bool  #: there are more than were counted
    samples: tuple[str, ...]


def lease_expired(session: Session, *, wait: timedelta) -> Found:
    """Rows whose lease ended longer than ``wait`` ago, and that nobody has judged."""
    ended = QueueRow.lease_expires_at < func.clock_timestamp() - wait
    return _found(session, _rows(is_in(QueueRow.status, {TaskStatus.PROCESSING}), ended))


def unpublished(session: Session, *, wait: timedelta) -> Found:
    """Rows that have been due for longer than ``wait``, and that nobody was told of."""
    return _found(
        session,
        _rows(
            is_in(QueueRow.status, DUE),
            QueueRow.published_at.is_(None),
            QueueRow.available_at < func.clock_timestamp() - wait,
            ~in_paused_lane(),
        ),
    )


def in_paused_lanes(session: Session) -> Found:
    """Due rows that wait because their lane is paused."""
    return _found(session, _rows(is_in(QueueRow.status, DUE), in_paused_lane()))


def letters_without_copy(session: Session, *, wait: timedelta) -> Found:
    """Open dead letters older than ``wait`` of which SQS has no copy."""
    query = select(DeadLetter.id).where(
        DeadLetter.dead_lettered_at.is_(None),
        DeadLetter.resolved_at.is_(None),
        DeadLetter.created_at < func.clock_timestamp() - wait,
    )
    return _found(session, query)


def jobs_that_disagree(session: Session) -> Found:
    """Jobs whose status is not what their rows say: a mistake of ours, or a hand in the tables.

    Final jobs are looked at by their active rows, so that what has ended well costs nothing.
    """
    live = aliased(QueueRow)
    at_work = exists().where(
        live.job_id == ProcessingJob.id, is_in(_status(live), ACTIVE - {TaskStatus.PENDING})
    )
    idle = select(ProcessingJob.id).where(is_in(ProcessingJob.status, JOB_ACTIVE), ~at_work)
    undead = (
        select(ProcessingJob.id)
        .join(QueueRow, QueueRow.job_id == ProcessingJob.id)
        .where(is_in(QueueRow.status, ACTIVE), is_in(ProcessingJob.status, JOB_FINAL))
        .distinct()
    )
    one, other = _found(session, idle), _found(session, undead)
    samples = (*one.samples, *other.samples)[:SAMPLES]
    return Found(one.count + other.count, one.more or other.more, samples)


def _status(rows: Any) -> InstrumentedAttribute[str]:
    found: InstrumentedAttribute[str] = rows.status
    return found


def _rows(*which: ColumnElement[bool]) -> Select[Any]:
    return select(QueueRow.id).where(*which)


def _found(session: Session, query: Select[Any]) -> Found:
    ids = session.scalars(query.limit(MOST + 1)).all()
    return Found(min(len(ids), MOST), len(ids) > MOST, tuple(str(one) for one in ids[:SAMPLES]))
