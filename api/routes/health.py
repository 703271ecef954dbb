"""Is it alive, can it work, what does it measure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.asking import LIMIT_S, ask
from api.dependencies import Resources, ResourcesDep
from api.envelope import Envelope, Out
from db import fleet, marks
from db.session import guarded
from pipeline.errors import InfrastructureError
from tasks.control import queues_reachable

router = APIRouter(tags=["health"])


class Health(Out):
    """The process answers."""

    status: str = "alive"


class Check(Out):
    """What one dependency said."""

    ok: bool
    latency_ms: float
    error: str | None = None


class Readiness(Out):
    """Whether requests can be served, and by which dependency not."""

    ready: bool
    checks: dict[str, Check]
    """``database``, ``queues``, ``bucket``, ``room`` (no worker waits for space on its disk) and ``steward``
    (one has been heard of, so that what a fault drops is picked up)."""


class HealthAnswer(Envelope[Health]):
    """The process answers."""


class ReadinessAnswer(Envelope[Readiness]):
    """Whether requests can be served."""


@router.get("/health", summary="Is the process alive?")
async def health() -> HealthAnswer:
    """Answers whenever the process does; asks no other."""
    return HealthAnswer(data=Health())


@router.get(
    "/ready",
    summary="Can it work?",
    responses={503: {"model": ReadinessAnswer, "description": "A dependency does not answer; says which."}},
)
async def ready(held: ResourcesDep, response: Response) -> ReadinessAnswer:
    """Whether all of it can work, each part asked with a short timeout. Load balancers ask `/health`."""
    asked = _questions(held)
    checks = dict(zip(asked, await asyncio.gather(*map(_check, asked.values())), strict=True))
    told = Readiness(ready=all(check.ok for check in checks.values()), checks=checks)
    if not told.ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return ReadinessAnswer(data=told)


def _questions(held: Resources) -> dict[str, Callable[[], None]]:
    return {
        "database": held.ping_database,
        "queues": lambda: queues_reachable(held.settings),
        "bucket": held.store.ping,
        "room": lambda: _ensure_room(held),
        "steward": lambda: _ensure_steward(held),
    }


def _ensure_room(held: Resources) -> None:
    """Raise InfrastructureError when a worker that is there has no room. Without a database none is known."""
    try:
        with guarded(), held.sessions() as session:
            full = fleet.without_room(session, silent=held.settings.worker_silent)
    except InfrastructureError:  # the check of the database says so
        return
    if full:
        told = "; ".join(f"{worker.id}: {worker.reason or 'no room'}" for worker in full)
        raise InfrastructureError(told, code="NO_ROOM")


def _ensure_steward(held: Resources) -> None:
    """Raise InfrastructureError when no steward is at work. Without a database nobody knows."""
    try:
        with guarded(), held.sessions() as session:
            silent = marks.age(session, marks.WATCHED)
    except InfrastructureError:
        return
    if silent is None or silent > held.settings.worker_silent:
        heard = (
            "has ever been heard of"
            if silent is None
            else f"has been heard of for {silent.total_seconds():.0f} s"
        )
        raise InfrastructureError(
            f"No steward {heard}: what a fault has dropped waits for one. Start `dailies steward`.",
            code="NO_STEWARD",
        )


async def _check(question: Callable[[], None]) -> Check:
    started = time.perf_counter()
    error = None
    try:
        await asyncio.wait_for(asyncio.wrap_future(ask(question)), LIMIT_S)
    except TimeoutError:
        error = f"No answer within {LIMIT_S:g} s."
    except Exception as problem:  # noqa: BLE001 - whatever it is, the answer is "not ready"
        error = str(problem)
    return Check(ok=error is None, latency_ms=round((time.perf_counter() - started) * 1000, 1), error=error)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "The text format of Prometheus."}},
)
def metrics(held: ResourcesDep) -> Response:
    """Requests as handled, queues as the database has them now."""
    return Response(held.metrics.expose(), media_type=CONTENT_TYPE_LATEST)
