"""Reading the lanes: what waits in each, and how long."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import stats
from pipeline.states import DUE, TaskStatus


@dataclass(slots=True)
class Lane:
    """The rows of one lane that are not final."""

    due: int = 0  #: could start now
    delayed: int = 0  #: due later: a retry's wait
    processing: int = 0
    retrying: int = 0  #: of due and delayed, those that failed before
    pending: int = 0  #: wait for the stage before
    oldest_due_seconds: float | None = None  #: how long the oldest due row has waited
    estimated: bool = False  #: there are so many that they were not all counted


def count_lanes(session: Session) -> dict[str, Lane]:
    """The lanes that have rows which are not final; what is finished costs nothing."""
    lanes = {queue: Lane(oldest_due_seconds=age) for queue, age in stats.oldest_waiting(session).items()}
    for rows in stats.count_living(session):
        lane = lanes.setdefault(rows.queue, Lane())
        lane.estimated |= rows.estimated
        if rows.status in DUE:
            lane.due += rows.due
            lane.delayed += rows.count - rows.due
        if rows.status == TaskStatus.RETRYING:
            lane.retrying += rows.count
        elif rows.status == TaskStatus.PROCESSING:
            lane.processing += rows.count
        elif rows.status == TaskStatus.PENDING:
            lane.pending += rows.count
    return lanes
