"""Counting stops at a bound; beyond it the planner's word is told, and said to be an estimate."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import stats
from pipeline.states import FINAL, TaskStatus
from pipeline.workflows import StageName, WorkflowType
from tests import factories

BULK = {"workflow": WorkflowType.THUMBNAILS, "priority": 1}


def _add(session: Session, count: int, *statuses: TaskStatus, **values: object) -> None:
    for _ in range(count):
        factories.add_job(session, factories.add_item(session), statuses, **values)  # type: ignore[arg-type]


def _finished(session: Session, bound: int) -> dict[TaskStatus, tuple[int, bool]]:
    return {each.status: (each.count, each.estimated) for each in stats.count_finished(session, bound=bound)}


def test_finished_rows_are_exact_up_to_the_bound(session: Session) -> None:
    _add(session, 5, TaskStatus.COMPLETED, TaskStatus.COMPLETED, workflow=WorkflowType.THUMBNAILS)
    expected = dict.fromkeys(FINAL, (0, False)) | {TaskStatus.COMPLETED: (10, False)}
    assert _finished(session, bound=10) == expected


def test_finished_rows_beyond_the_bound_are_the_planners_estimate(session: Session) -> None:
    _add(session, 30, TaskStatus.COMPLETED, TaskStatus.COMPLETED, workflow=WorkflowType.THUMBNAILS)
    _add(session, 2, TaskStatus.FAILED, TaskStatus.CANCELLED, workflow=WorkflowType.THUMBNAILS)
    session.execute(text("ANALYZE processing_queue"))
    counted = _finished(session, bound=10)
    assert counted[TaskStatus.COMPLETED] == (60, True)
    assert counted[TaskStatus.FAILED] == (2, False)


def test_an_estimate_is_never_below_what_was_counted(session: Session) -> None:
    session.execute(text("ANALYZE processing_queue"))
    _add(session, 30, TaskStatus.COMPLETED, TaskStatus.COMPLETED, workflow=WorkflowType.THUMBNAILS)
    count, estimated = _finished(session, bound=10)[TaskStatus.COMPLETED]
    assert (count >= 11, estimated) == (True, True)


def test_living_rows_beyond_the_bound_are_estimated_lane_by_lane(session: Session) -> None:
    _add(session, 40, TaskStatus.QUEUED, **BULK)
    _add(session, 3, TaskStatus.QUEUED, workflow=WorkflowType.THUMBNAILS, priority=9)
    session.execute(text("ANALYZE processing_queue"))
    counted = {
        (each.queue, each.status, each.job_type): (each.count, each.due, each.estimated)
        for each in stats.count_living(session, bound=20)
    }
    queued, pending = counted["bulk", "queued", "thumbnails"], counted["bulk", "pending", "audit"]
    assert queued[0] == queued[1]
    assert (queued[2], pending[2]) == (True, True)
    assert 30 <= queued[0] <= 50
    assert pending[1] == 0
    assert counted["express", "queued", StageName.THUMBNAILS] == (3, 3, False)
    assert counted["express", "pending", StageName.AUDIT] == (3, 0, False)


def test_oldest_due_row_of_each_lane_is_told_also_where_none_is_due(session: Session) -> None:
    hour = timedelta(hours=1)
    long_ago, later = {"available_at": factories.now() - hour}, {"available_at": factories.now() + hour}
    _add(session, 2, TaskStatus.QUEUED, **BULK)
    _add(session, 1, TaskStatus.RETRYING, rows={0: long_ago}, **BULK)
    _add(session, 1, TaskStatus.RETRYING, rows={0: later}, workflow=WorkflowType.THUMBNAILS)
    waits = stats.oldest_waiting(session)
    assert set(waits) == {"bulk", "standard"}
    assert 3600 <= (waits["bulk"] or 0) < 3700
    assert waits["standard"] is None
