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


def drop_months(session: Session, before: date) -> int:
    """Drop the partitions of the months that were over at ``before``; returns how many there were.

    A lock that is not to be had within seconds is given up: the next round asks again.
    """
    over = session.scalars(
        text(
            "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid"
            r" WHERE inhparent = 'audit_log'::regclass AND child.relname ~ '^audit_log_\d{4}_\d{2}$'"
            " AND child.relname < to_char(CAST(:before AS date), '\"audit_log_\"YYYY_MM')"
        ),
        {"before": before},
    ).all()
    session.execute(text("SET LOCAL lock_timeout = '2s'"))
    for name in over:
        session.execute(text(f'DROP TABLE "{name}"'))
    return len(over)
