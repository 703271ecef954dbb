"""What all tables share: naming of constraints, types of columns, the trigger that keeps ``updated_at``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

UuidKey = Annotated[UUID, mapped_column(primary_key=True, default=uuid7)]
Created = Annotated[datetime, mapped_column(server_default=func.now())]
JsonObject = Annotated[dict[str, Any], mapped_column(JSONB, server_default="{}", default=dict)]
JsonList = Annotated[list[Any], mapped_column(JSONB, server_default="[]", default=list)]


class Base(DeclarativeBase):
    """Root of the models."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 - SQLAlchemy's own idiom


class Touched:
    """``updated_at``, kept by the trigger ``set_updated_at``."""

    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SoftDeleted:
    """Columns of a row that is deleted by mark, with who and why, and can be restored."""

    deleted_at: Mapped[datetime | None]
    deleted_by: Mapped[str | None]
    deleted_reason: Mapped[str | None]
    restored_at: Mapped[datetime | None]
    restored_by: Mapped[str | None]


def in_list(values: Iterable[StrEnum]) -> str:
    """``'a', 'b'`` for an SQL IN list, in a stable order."""
    return ", ".join(f"'{value}'" for value in sorted(values))


def one_of(column: str, values: Iterable[StrEnum]) -> CheckConstraint:
    """A CHECK that ``column`` holds one of ``values``."""
    return CheckConstraint(f"{column} IN ({in_list(values)})", name=f"{column}_known")
