"""The audit log: one entry for what somebody did, one summary for every job that ended."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.models import AuditEntry


def record(
    session: Session,
    *,
    entity_type: str,
    entity_id: UUID,
    action: str,
    actor: str = "system",
    details: dict[str, Any] | None = None,
    request_id: str | None = None,
) -> None:
    """Add one entry, in the transaction of what it tells."""
    session.add(
        AuditEntry(
            entity_type=entity_type,
            entity_id=entity_id,
            action=action,
            actor=actor,
            details=details or {},
            request_id=request_id,
        )
    )


def ensure_partitions(session: Session, today: date, *, months_ahead: int = 2) -> None:
    """Make the partitions of ``today``'s month and the ``months_ahead`` after it, where they are missing."""
    session.execute(
        text(
            "SELECT audit_log_ensure_partition((:first + make_interval(months => n))::date)"
            " FROM generate_series(0, :n) n"
        ),
        {"first": today.replace(day=1), "n": months_ahead},
    )
