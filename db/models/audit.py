"""The audit log: append-only, partitioned by month."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from db.models.base import Base, Created, JsonObject


class AuditEntry(Base):
    """Who did what to which entity, when. A trigger refuses UPDATE and DELETE."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_entity", "entity_type", "entity_id"),
        Index("ix_audit_log_created_at", "created_at"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    audit_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    created_at: Mapped[Created] = mapped_column(primary_key=True)
    entity_type: Mapped[str]
    entity_id: Mapped[UUID]
    action: Mapped[str]
    field_name: Mapped[str | None]
    old_value: Mapped[str | None]
    new_value: Mapped[str | None]
    details: Mapped[JsonObject]
    user_id: Mapped[UUID | None]
    user_email: Mapped[str | None]
    actor: Mapped[str] = mapped_column(default="system", server_default="system")
    ip_address: Mapped[Any | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    request_id: Mapped[str | None]
