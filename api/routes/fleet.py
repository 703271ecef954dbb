"""Queues, the workers that serve them, and the drift between rows, messages and objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as TooSlowError
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Query

from api.asking import LIMIT_S, ask
from api.dependencies import Resources, ResourcesDep
from api.errors import ANY_OPERATION, CONFLICT, NOT_FOUND
from api.publishing import in_time
from api.schemas import fleet as schemas
from api.schemas.control import ActorHeader, PublishedLane, PublishedLaneAnswer, Why
from db import fleet, jobs, lanes, queue
from db.lanes import Lane
from db.models import PausedLane
from db.session import guarded
from pipeline.errors import ConflictError, InfrastructureError, NotFoundError
from pipeline.queues import LANES, Queue
from tasks import control
from tasks.control import Depth

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1", responses=ANY_OPERATION)

LaneName = Annotated[str, Path(max_length=50, description="`express`, `standard`, `bulk` or `heavy`.")]


@router.get("/queues", tags=["queue"], summary="Every queue")
def list_queues(held: ResourcesDep) -> schemas.QueuesAnswer:
    """Messages, rows, who paused it, who serves it. The rows are told even when SQS does not answer."""
    depths, error = _depths(held)
    with guarded(), held.sessions() as session:
        rows, paused = lanes.count_lanes(session), jobs.paused_lanes(session)
        workers = fleet.serving(fleet.list_workers(session, silent=held.settings.worker_silent))
    return schemas.QueuesAnswer(
        data=[
            schemas.QueueState.model_validate(
                {
                    "name": name,
                    **_messages(depths.get(name)),
                    **_rows(name, rows),
                    "paused": _pause(paused.get(name)),
                    "workers": workers.get(name, []),
                    "error": error,
                }
            )
            for name in Queue
        ]
    )


def _depths(held: Resources) -> tuple[Mapping[Queue, Depth], str | None]:
    answer = ask(lambda: control.depths(held.settings))
    try:
        return answer.result(LIMIT_S), None
    except InfrastructureError as error:
        return {}, error.message
    except TooSlowError:
        return {}, f"SQS has not answered within {LIMIT_S:g} s."


def _messages(depth: Depth | None) -> dict[str, int | None]:
    names = ("visible", "in_flight", "delayed")
    return {name: None if depth is None else getattr(depth, name) for name in names}


def _rows(name: Queue, rows: Mapping[str, Lane]) -> dict[str, float | None]:
    lane = rows.get(name, Lane()) if name in LANES else None
    names = {"waiting": "delayed"} | {
        each: each for each in ("due", "processing", "retrying", "pending", "estimated", "oldest_due_seconds")
    }
    return {told: None if lane is None else getattr(lane, stored) for told, stored in names.items()}


def _pause(lane: PausedLane | None) -> schemas.Pause | None:
    if lane is None:
        return None
    return schemas.Pause(by=lane.paused_by, reason=lane.reason, since=lane.paused_at)


@router.post("/queues/{name}/pause", tags=["queue"], summary="Pause a lane", responses=NOT_FOUND)
def pause_queue(
    name: LaneName, held: ResourcesDep, x_actor: ActorHeader = None, why: Why | None = None
) -> PublishedLaneAnswer:
    """Start nothing more from a lane until it is resumed, also after a restart. What runs goes on."""
    lane, why = _lane(name), why or Why()
    actor = why.by(x_actor)
    with guarded(), held.sessions.begin() as session:
        changed = queue.pause_lane(session, lane, actor=actor, reason=why.reason)
    log.info("queue_paused", queue=lane, actor=actor, reason=why.reason, changed=changed)
    return PublishedLaneAnswer(data=PublishedLane(name=lane, paused=True, changed=changed, published=0))


@router.post("/queues/{name}/resume", tags=["queue"], summary="Resume a lane", responses=NOT_FOUND)
def resume_queue(
    name: LaneName, held: ResourcesDep, x_actor: ActorHeader = None, why: Why | None = None
) -> PublishedLaneAnswer:
    """Start what waits in a lane again; messages for what is due are sent at once."""
    lane, why = _lane(name), why or Why()
    actor = why.by(x_actor)
    with guarded(), held.sessions.begin() as session:
        changed = queue.resume_lane(session, lane, actor=actor, reason=why.reason)
    published = in_time(held, partial(control.publish_lane, held.sessions, lane)) if changed else 0
    log.info("queue_resumed", queue=lane, actor=actor, reason=why.reason, published=published)
    return PublishedLaneAnswer(
        data=PublishedLane(name=lane, paused=False, changed=changed, published=published)
    )


def _lane(name: str) -> Queue:
    if name not in LANES:
        raise NotFoundError(f"There is no lane {name!r}; what can be paused is {', '.join(LANES)}.")
    return Queue(name)


@router.get("/workers", tags=["workers"], summary="Every worker")
def list_workers(
    query: Annotated[schemas.WorkersQuery, Query()], held: ResourcesDep
) -> schemas.WorkersAnswer:
    """The workers of the last day, who spoke last first, each with what it holds now."""
    with guarded(), held.sessions() as session:
        found = fleet.list_workers(session, silent=held.settings.worker_silent)
    return schemas.WorkersAnswer(data=[_worker(seen) for seen in found if query.state in {None, seen.state}])


def _worker(seen: fleet.SeenWorker) -> schemas.Worker:
    of_itself = ("id", "name", "host", "pid", "lanes", "concurrency", "version", "reason", "started_at")
    return schemas.Worker.model_validate(
        {
            **{name: getattr(seen.worker, name) for name in (*of_itself, "last_seen_at")},
            "state": seen.state,
            "silent_seconds": round(max(seen.silent_seconds, 0.0), 1),
            "rows": [schemas.CurrentRow.model_validate(row) for row in seen.rows],
        }
    )


@router.get(
    "/reconcile",
    tags=["reconcile"],
    summary="Drift between rows, messages and objects",
    responses=CONFLICT,
)
def get_drift(held: ResourcesDep) -> schemas.DriftAnswer:
    """Where rows, messages and objects disagree, and what mends it. Changes nothing; takes some seconds.

    One at a time in a process, this or mending: another one is refused (RECONCILE_RUNNING).
    """
    with _alone(held):
        return schemas.DriftAnswer(data=schemas.Drift.model_validate(control.drift(held.settings)))


@router.post("/reconcile", tags=["reconcile"], summary="Mend the drift now", responses=CONFLICT)
def mend_drift(
    held: ResourcesDep, x_actor: ActorHeader = None, why: Why | None = None
) -> schemas.MendedAnswer:
    """Run the steward's steps now instead of in their turn. It does by itself whatever this does."""
    why = why or Why()
    with _alone(held):
        done = control.mend(held.settings, actor=why.by(x_actor), reason=why.reason)
    return schemas.MendedAnswer(data=schemas.Mended.model_validate(done))


@contextmanager
def _alone(held: Resources) -> Iterator[None]:
    """Each takes one of the few threads for up to minutes, and connections of its own."""
    if not held.reconciling.acquire(blocking=False):
        raise ConflictError(
            "Rows, messages and objects are being compared already; ask again when that has ended.",
            code="RECONCILE_RUNNING",
        )
    try:
        yield
    finally:
        held.reconciling.release()
