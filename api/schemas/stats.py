"""Queue rows, counted, as the API tells them."""

from __future__ import annotations

from api.envelope import Envelope, Out
from pipeline.states import TaskStatus
from pipeline.workflows import StageName


class QueueStats(Out):
    """How much there is to do, and how long it has waited."""

    by_status: dict[TaskStatus, int]
    """Every row there is."""
    by_queue: dict[str, dict[TaskStatus, int]]
    """Rows that are not final, by lane."""
    by_job_type: dict[StageName, dict[TaskStatus, int]]
    """Rows that are not final, by stage."""
    oldest_waiting_seconds: dict[str, float | None]
    """How long the oldest due row of each lane has waited; null when none is due."""
    living: int
    """Rows that are not final."""
    total: int
    """All rows."""
    estimated: bool
    """Whether a number above is an estimate: more than 1,000 rows of a final status, or more than 30,000 of
    a lane and another status, are not counted one by one. Smaller numbers are exact."""


class QueueStatsAnswer(Envelope[QueueStats]):
    """Queue rows, counted."""
