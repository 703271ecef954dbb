"""What workers say of themselves, and what they are told: the lanes that are paused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.models import Worker, WorkerState


def report(
    session: Session,
    worker_id: str,
    *,
    name: str,
    host: str,
    pid: int,
    lanes: Sequence[str],
    concurrency: int,
    version: str,
    state: WorkerState,
    reason: str | None = None,
) -> None:
    """Write a worker's word: that it is alive, and how."""
    said: dict[str, Any] = {
        "name": name,
        "host": host,
        "pid": pid,
        "lanes": list(lanes),
        "concurrency": concurrency,
        "version": version,
        "state": state,
        "reason": reason,
        "last_seen_at": func.clock_timestamp(),
    }
    session.execute(
        insert(Worker).values(id=worker_id, **said).on_conflict_do_update(index_elements=["id"], set_=said)
    )
