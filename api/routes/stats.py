"""Queue rows, counted."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from api.dependencies import ResourcesDep
from api.errors import ANY_OPERATION
from api.schemas.stats import QueueStats, QueueStatsAnswer
from db import stats
from db.session import guarded
from pipeline.states import TaskStatus

router = APIRouter(prefix="/api/v1", responses=ANY_OPERATION)


@router.get("/queue/stats", tags=["queue"], summary="Count queue rows")
def get_queue_stats(held: ResourcesDep) -> QueueStatsAnswer:
    """Rows by status, lane and stage, and how long the oldest due row of each lane has waited."""
    with guarded(), held.sessions() as session:
        finished, living = stats.count_finished(session), stats.count_living(session)
        return QueueStatsAnswer(data=_told(finished, living, stats.oldest_waiting(session)))


def _told(
    finished: Sequence[stats.FinishedRows],
    living: Sequence[stats.LivingRows],
    oldest: dict[str, float | None],
) -> QueueStats:
    every: list[stats.FinishedRows | stats.LivingRows] = [*finished, *living]
    told = QueueStats(
        by_status=dict.fromkeys(TaskStatus, 0) | {each.status: each.count for each in finished},
        by_queue={},
        by_job_type={},
        oldest_waiting_seconds=oldest,
        living=sum(each.count for each in living),
        total=sum(each.count for each in every),
        estimated=any(each.estimated for each in every),
    )
    for each in living:
        told.by_status[each.status] += each.count
        for counts in (
            told.by_queue.setdefault(each.queue, {}),
            told.by_job_type.setdefault(each.job_type, {}),
        ):
            counts[each.status] = counts.get(each.status, 0) + each.count
    return told
