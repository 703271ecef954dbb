"""How many rows there are in each state, and how long the oldest has waited."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import QueueRow
from pipeline.states import ACTIVE, DUE


@dataclass(frozen=True, slots=True)
class Stats:
    """Living rows by lane and status, all rows by status, and the longest wait of each lane."""

    by_queue: dict[str, dict[str, int]]
    by_job_type: dict[str, dict[str, int]]
    by_status: dict[str, int]
    oldest_wait: dict[str, timedelta]


def stats(session: Session) -> Stats:
    """Count. Living rows come from the partial index; finished ones are counted from the status index."""
    by_queue: dict[str, dict[str, int]] = defaultdict(dict)
    by_job_type: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    by_status: dict[str, int] = defaultdict(int)
    oldest: dict[str, timedelta] = {}
    living = session.execute(
        select(
            QueueRow.queue,
            QueueRow.job_type,
            QueueRow.status,
            func.count(),
            func.max(func.clock_timestamp() - QueueRow.available_at),
        )
        .where(QueueRow.status.in_(ACTIVE))
        .group_by(QueueRow.queue, QueueRow.job_type, QueueRow.status)
    )
    for queue, job_type, status, count, wait in living:
        by_queue[queue][status] = by_queue[queue].get(status, 0) + count
        by_job_type[job_type][status] += count
        by_status[status] += count
        if status in DUE and wait > timedelta():
            oldest[queue] = max(wait, oldest.get(queue, timedelta()))
    finished = session.execute(
        select(QueueRow.status, func.count()).where(QueueRow.status.not_in(ACTIVE)).group_by(QueueRow.status)
    )
    by_status.update(dict(finished.tuples().all()))
    return Stats(
        dict(by_queue), {name: dict(counts) for name, counts in by_job_type.items()}, dict(by_status), oldest
    )
