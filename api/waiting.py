"""Why a queue row is not finished: one code for machines, one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from api.envelope import Out, Utc
from db.models import PausedLane, QueueRow
from pipeline.states import DUE, FINAL, TaskStatus


class WaitingCode(StrEnum):
    """What a row waits for."""

    PREDECESSOR = "PREDECESSOR"  #: a stage before it
    LANE_PAUSED = "LANE_PAUSED"  #: an operator who resumes the lane
    NOT_DUE = "NOT_DUE"  #: a moment, most often the next try's
    NOT_PUBLISHED = "NOT_PUBLISHED"  #: the steward, who sends a message for it
    IN_QUEUE = "IN_QUEUE"  #: a free worker
    LEASED = "LEASED"  #: the worker that has it


class WaitingBecause(Out):
    """Why a row is not finished."""

    code: WaitingCode
    message: str
    until: Utc | None = None
    """When that changes by itself, where that is known."""


def waiting_because(
    row: QueueRow, *, rows: Sequence[QueueRow], paused: Mapping[str, PausedLane], now: datetime
) -> WaitingBecause | None:
    """Why ``row`` waits, or None when it is final.

    ``rows`` are all rows of its job in order, ``paused`` the paused lanes by queue, ``now`` the database's
    clock. Where more than one thing holds a row, the one that needs a person comes first.
    """
    if row.status == TaskStatus.PENDING:
        return _predecessor(row, rows)
    if row.status == TaskStatus.PROCESSING:
        return _leased(row, now)
    if row.status not in DUE:
        return None
    if (lane := paused.get(row.queue)) is not None:
        return _paused(lane)
    if row.available_at > now:
        return _not_due(row)
    return _in_queue(row, now)


def _predecessor(row: QueueRow, rows: Sequence[QueueRow]) -> WaitingBecause:
    before = [each for each in rows if each.position < row.position and each.status not in FINAL]
    message = (
        f"It starts when the stage {before[0].job_type} has finished, which is {before[0].status}."
        if before
        else "The stages before it have finished; it is made due with the last of them."
    )
    return WaitingBecause(code=WaitingCode.PREDECESSOR, message=message)


def _leased(row: QueueRow, now: datetime) -> WaitingBecause:
    until = row.lease_expires_at
    message = f"Worker {row.worker} is working on it."
    if until is not None and until <= now:
        message = f"Worker {row.worker} has not been heard of; the steward gives the row to another one."
    return WaitingBecause(code=WaitingCode.LEASED, message=message, until=until)


def _paused(lane: PausedLane) -> WaitingBecause:
    reason = f" ({lane.reason})" if lane.reason else ""
    message = (
        f"The lane {lane.queue} was paused by {lane.paused_by}{reason}; it starts when the lane is resumed."
    )
    return WaitingBecause(code=WaitingCode.LANE_PAUSED, message=message)


def _not_due(row: QueueRow) -> WaitingBecause:
    message = "It is not due yet."
    if row.error_code:
        message = (
            f"The last try failed with {row.error_code} ({row.error_message}); the next one is not due yet."
        )
    return WaitingBecause(code=WaitingCode.NOT_DUE, message=message, until=row.available_at)


def _in_queue(row: QueueRow, now: datetime) -> WaitingBecause:
    if row.published_at is None:
        message = "It is due, and no message was sent for it yet; the steward sends one within seconds."
        return WaitingBecause(code=WaitingCode.NOT_PUBLISHED, message=message)
    if row.published_at > now:
        message = f"Its message becomes visible in the queue {row.queue} later."
        return WaitingBecause(code=WaitingCode.IN_QUEUE, message=message, until=row.published_at)
    since = row.published_at.isoformat(timespec="seconds")
    message = f"Its message is in the queue {row.queue} since {since} and waits for a free worker."
    return WaitingBecause(code=WaitingCode.IN_QUEUE, message=message)
