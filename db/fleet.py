"""Reading the workers: who works, on what, and who has fallen silent. What writes them is ``db.workers``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import QueueRow, Worker, WorkerState
from db.models.base import is_in
from pipeline.states import TaskStatus

#: Silent workers are pruned after a day, so a longer list is not met.
MOST = 1_000


class SeenState(StrEnum):
    """What is known of a worker: its own last word, or that there has been none for too long."""

    RUNNING = "running"
    NO_ROOM = "no_room"  #: its spool or disk is full: it starts nothing, and fails nothing
    STOPPING = "stopping"  #: told to end; running stages get their time
    STOPPED = "stopped"
    LOST = "lost"  #: silent for longer than the setting ``worker_silent``


#: Workers that are there: they may start work now or later.
LIVING = frozenset({SeenState.RUNNING, SeenState.NO_ROOM, SeenState.STOPPING})


@dataclass(frozen=True, slots=True)
class CurrentRow:
    """A row that a worker holds now."""

    id: UUID
    job_id: UUID
    job_type: str
    started_at: datetime | None
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker, its state, the age of its last word and what it holds."""

    worker: Worker
    state: SeenState
    silent_seconds: float
    rows: list[CurrentRow]


def list_workers(session: Session, *, silent: timedelta) -> list[SeenWorker]:
    """The workers of the last day, who spoke last first. ``lost`` are those without a word for ``silent``."""
    held = _held(session)
    age = func.extract("epoch", func.clock_timestamp() - Worker.last_seen_at)
    found = session.execute(select(Worker, age).order_by(Worker.last_seen_at.desc()).limit(MOST)).all()
    return [
        SeenWorker(
            worker, _state(worker.state, float(seconds), silent), float(seconds), held.get(worker.id, [])
        )
        for worker, seconds in found
    ]


def serving(workers: Sequence[SeenWorker]) -> dict[str, list[str]]:
    """The ids of the living workers, by the lanes that they serve."""
    by_lane: dict[str, list[str]] = {}
    for seen in workers:
        if seen.state in LIVING:
            for lane in seen.worker.lanes:
                by_lane.setdefault(lane, []).append(seen.worker.id)
    return by_lane


def count_states(session: Session, *, silent: timedelta) -> dict[SeenState, int]:
    """The workers of the last day by state; a state that none is in counts 0."""
    counted = Counter(seen.state for seen in list_workers(session, silent=silent))
    return {state: counted[state] for state in SeenState}


def without_room(session: Session, *, silent: timedelta) -> list[Worker]:
    """The workers that are there and say that they have no room."""
    return list(
        session.scalars(
            select(Worker)
            .where(Worker.state == WorkerState.NO_ROOM, Worker.last_seen_at > func.clock_timestamp() - silent)
            .order_by(Worker.id)
        )
    )


def _state(said: str, seconds: float, silent: timedelta) -> SeenState:
    lost = said != WorkerState.STOPPED and seconds > silent.total_seconds()
    return SeenState.LOST if lost else SeenState(said)


def _held(session: Session) -> dict[str, list[CurrentRow]]:
    """What is processing, by the worker's id: a row names ``<worker id>/<pid of the pool's child>``."""
    found = session.execute(
        select(
            QueueRow.worker,
            QueueRow.id,
            QueueRow.job_id,
            QueueRow.job_type,
            QueueRow.started_at,
            QueueRow.lease_expires_at,
        )
        .where(is_in(QueueRow.status, {TaskStatus.PROCESSING}))
        .order_by(QueueRow.started_at)
    )
    held: dict[str, list[CurrentRow]] = {}
    for worker, row_id, job_id, job_type, started_at, until in found:
        held.setdefault((worker or "").partition("/")[0], []).append(
            CurrentRow(row_id, job_id, job_type, started_at, until)
        )
    return held
