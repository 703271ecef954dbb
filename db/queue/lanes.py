"""Pausing and resuming a lane. A pause is a row that claims and the steward read, so it survives restarts."""

from __future__ import annotations

from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import audit
from db.models import PausedLane


def lane_id(queue: str) -> UUID:
    """The id under which the audit log knows a queue."""
    return uuid5(NAMESPACE_URL, f"dailies:queue:{queue}")


def pause_lane(session: Session, queue: str, *, actor: str, reason: str | None = None) -> bool:
    """Start nothing more from ``queue``. Returns False when it is paused already: nothing changes."""
    added = session.scalar(
        insert(PausedLane)
        .values(queue=queue, paused_by=actor, reason=reason)
        .on_conflict_do_nothing()
        .returning(PausedLane.queue)
    )
    if added is not None:
        _tell(session, queue, "queue_paused", actor, reason)
    return added is not None


def resume_lane(session: Session, queue: str, *, actor: str = "system", reason: str | None = None) -> bool:
    """Take the pause back. Returns False when there is none.

    The caller publishes what is ``unpublished`` in it after the commit; the steward does what is left.
    """
    removed = session.scalar(delete(PausedLane).where(PausedLane.queue == queue).returning(PausedLane.queue))
    if removed is not None:
        _tell(session, queue, "queue_resumed", actor, reason)
    return removed is not None


def _tell(session: Session, queue: str, action: str, actor: str, reason: str | None) -> None:
    audit.record(
        session,
        entity_type="queue",
        entity_id=lane_id(queue),
        action=action,
        actor=actor,
        details={"queue": queue, "reason": reason},
    )
    session.flush()
