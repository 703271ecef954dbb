"""Every answer to "why does this row wait?"."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.waiting import WaitingBecause, waiting_because
from db.models import PausedLane, QueueRow
from pipeline.states import FINAL, TaskStatus

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
PAUSED = {"bulk": PausedLane(queue="bulk", paused_at=BEFORE, paused_by="ann", reason=None)}


def row(status: TaskStatus, position: int = 0, **values: Any) -> QueueRow:
    given = {"job_type": "dedupe", "queue": "standard", "available_at": BEFORE, "worker": "w@host"} | values
    return QueueRow(status=status, position=position, **given)


def why(waiting: QueueRow, *others: QueueRow) -> WaitingBecause:
    told = waiting_because(waiting, rows=[*others, waiting], paused=PAUSED, now=NOW)
    assert told is not None
    return told


@pytest.mark.parametrize("status", sorted(FINAL))
def test_final_row_waits_for_nothing(status: TaskStatus) -> None:
    assert waiting_because(row(status), rows=[], paused=PAUSED, now=NOW) is None


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.RETRYING])
@pytest.mark.parametrize(
    ("values", "code", "words", "until"),
    [
        ({"available_at": AFTER}, "NOT_DUE", "not due yet", AFTER),
        ({"available_at": AFTER, "error_code": "E", "error_message": "m"}, "NOT_DUE", "E (m)", AFTER),
        ({"queue": "bulk"}, "LANE_PAUSED", "by ann;", None),
        ({"queue": "bulk", "available_at": AFTER}, "LANE_PAUSED", "resumed", None),
        ({}, "NOT_PUBLISHED", "no message was sent", None),
        ({"published_at": BEFORE}, "IN_QUEUE", "since 2026-11-20T11:59:00+00:00", None),
        ({"published_at": AFTER}, "IN_QUEUE", "later", AFTER),
        ({"published_at": NOW}, "IN_QUEUE", "free worker", None),
    ],
)
def test_row_that_may_be_claimed(
    status: TaskStatus, values: dict[str, Any], code: str, words: str, until: datetime | None
) -> None:
    told = why(row(status, **values))
    assert (told.code, told.until) == (code, until)
    assert words in told.message


def test_pending_row_names_the_first_stage_that_has_not_finished() -> None:
    done, current = row(TaskStatus.COMPLETED, 0), row(TaskStatus.PROCESSING, 1, job_type="metadata")
    between, waiting = row(TaskStatus.PENDING, 2, job_type="index"), row(TaskStatus.PENDING, 3)
    told = why(waiting, done, current, between)
    assert told.code == "PREDECESSOR"
    assert "metadata has finished, which is processing" in told.message


def test_pending_row_behind_final_ones_says_so() -> None:
    assert "have finished" in why(row(TaskStatus.PENDING, 1), row(TaskStatus.COMPLETED, 0)).message


@pytest.mark.parametrize(("until", "words"), [(AFTER, "is working on it"), (NOW, "not been heard of")])
def test_leased_row_names_its_worker(until: datetime, words: str) -> None:
    told = why(row(TaskStatus.PROCESSING, lease_expires_at=until))
    assert (told.code, told.until) == ("LEASED", until)
    assert "w@host" in told.message
    assert words in told.message
