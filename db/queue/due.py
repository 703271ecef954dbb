"""Rows that are due: whom nobody was told of, and whose message is lost."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, exists, func, literal, select, text, true, update
from sqlalchemy.orm import Session, aliased

from db.models import Attempt, PausedLane, ProcessingJob, QueueRow
from db.models.base import is_in
from db.queue.control import PRIORITY_LANES
from pipeline.queues import lane_for
from pipeline.states import DUE

CLAIMS = 1000  #: of all lanes, that say what was overtaken
OVERTAKERS = 3

Waiting = list[tuple[UUID, datetime | None]]  #: rows and their ``published_at``


def unpublished(
    session: Session, lane: str | None = None, *, horizon: timedelta, limit: int = 500
) -> list[UUID]:
    """Rows due within ``horizon`` that nobody was told of, of one lane or of all, oldest first.

    A lane that is paused has none.
    """
    found = session.scalars(
        select(QueueRow.id)
        .where(
            is_in(QueueRow.status, DUE),
            QueueRow.published_at.is_(None),
            QueueRow.available_at <= func.clock_timestamp() + horizon,
            ~in_paused_lane(),
            *([] if lane is None else [QueueRow.queue == lane]),
        )
        .order_by(QueueRow.available_at)
        .limit(limit)
    )
    return list(found)


def waiting_since(session: Session, queue: str, *, wait: timedelta, limit: int = 100) -> Waiting:
    """Due rows of ``queue`` that were published and have waited longer than ``wait``, oldest first.

    What waits in an empty queue was lost on the way: the steward publishes it again.
    """
    found = session.execute(
        select(QueueRow.id, QueueRow.published_at)
        .where(*_waited(queue, wait))
        .order_by(_since())
        .limit(limit)
    )
    return [(row_id, published_at) for row_id, published_at in found]


def any_waiting(session: Session, queue: str, *, wait: timedelta) -> bool:
    """Whether ``waiting_since`` has any, without a look at all of them."""
    return bool(session.scalar(select(exists().where(*_waited(queue, wait)))))


def forget_publication(session: Session, queue: str, *, wait: timedelta | None, limit: int = 1000) -> int:
    """Say that nobody was told of the rows of ``queue`` that have waited for ``wait``: the messages are gone.

    With None all messages of the queue are, also those that were to become visible later. Returns how many
    rows; call it again until that is less than ``limit``.
    """
    which = (QueueRow.queue == queue, is_in(QueueRow.status, DUE), QueueRow.published_at.is_not(None))
    rows = select(QueueRow.id).where(*which if wait is None else _waited(queue, wait))
    return forget(session, QueueRow.id.in_(rows.limit(limit).with_for_update(skip_locked=True)))


def take_back(session: Session, job_id: UUID) -> None:
    """It is unknown whether the message of the job's due row was sent: say that nobody was told."""
    forget(session, QueueRow.job_id == job_id)


def forget(session: Session, *which: ColumnElement[bool]) -> int:
    """Clear ``published_at`` of the due rows ``which``; the steward publishes them."""
    cleared = session.scalars(
        update(QueueRow)
        .where(is_in(QueueRow.status, DUE), QueueRow.published_at.is_not(None), *which)
        .values(published_at=None)
        .returning(QueueRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(cleared.all())


def still_wanted(session: Session, row_id: UUID, *, patience: timedelta) -> bool:
    """Whether to keep a message that cannot be worked on here: its row is due, and waits for it.

    A message that became visible longer than ``patience`` ago is given up: the row says that nobody was told,
    and the steward publishes it.
    """
    row = (QueueRow.id == row_id, is_in(QueueRow.status, DUE))
    forget(session, *row, QueueRow.published_at < func.clock_timestamp() - patience)
    return bool(session.scalar(select(exists().where(*row, QueueRow.published_at.is_not(None)))))


def overtaken(
    session: Session, queue: str, *, margin: timedelta, by: int = OVERTAKERS, limit: int = 100
) -> Waiting:
    """Due rows of ``queue`` that others have overtaken, oldest first: their messages count as lost.

    Of the last claims at least ``by`` were of rows in it that were published ``margin`` later. In a backlog
    that moves in its order nobody is overtaken, however long it is.
    """
    newest = session.scalar(_claimed_since(queue).order_by(text("since DESC")).offset(by - 1).limit(1))
    if newest is None:
        return []
    found = session.execute(
        select(QueueRow.id, QueueRow.published_at)
        .where(*_waited(queue, margin), _since() <= newest - margin)
        .order_by(_since())
        .limit(limit)
    )
    return [(row_id, published_at) for row_id, published_at in found]


def _claimed_since(queue: str) -> Select[datetime]:
    """Since when those rows of ``queue`` had waited that were claimed of late, each for the first time."""
    last = select(Attempt.row_id, Attempt.token).order_by(Attempt.token.desc()).limit(CLAIMS).subquery()
    # A row that is tried again may come to the front, as one whose process was killed does.
    other = aliased(Attempt)
    again = exists().where(other.row_id == QueueRow.id, other.token != last.c.token).correlate(QueueRow, last)
    # The limit of one keeps the planner from reading all rows to find these.
    claimed = (
        select(_since().label("since"))
        .where(
            QueueRow.id == last.c.row_id,
            QueueRow.queue == queue,
            # One that was published after it was claimed got a copy for later: it says nothing of the queue.
            QueueRow.published_at <= QueueRow.started_at,
            ~again,
        )
        .limit(1)
        .lateral()
    )
    return select(claimed.c.since).select_from(last.join(claimed, true()))


def in_paused_lane() -> ColumnElement[bool]:
    """Whether the row's lane is paused."""
    return exists().where(PausedLane.queue == QueueRow.queue)


def lane_again(job: ProcessingJob) -> ColumnElement[str]:
    """The lane in which a row that ran waits again: its job's priority may have changed meanwhile."""
    moves = is_in(QueueRow.queue, PRIORITY_LANES)
    return case((moves, literal(str(lane_for(job.priority)))), else_=QueueRow.queue)


def _since() -> ColumnElement[datetime]:
    """From when a row has waited: not before its message was visible, nor before it was due."""
    return func.greatest(QueueRow.published_at, QueueRow.available_at)


def _waited(queue: str, wait: timedelta) -> tuple[ColumnElement[bool], ...]:
    before = func.clock_timestamp() - wait
    return (
        QueueRow.queue == queue,
        is_in(QueueRow.status, DUE),
        QueueRow.available_at < before,  # said by the next one too, but this one has an index
        QueueRow.published_at.is_not(None),
        _since() < before,
        ~in_paused_lane(),
    )
