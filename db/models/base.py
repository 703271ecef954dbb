"""What all tables share: naming of constraints, types of columns, the trigger that keeps ``updated_at``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    DateTime,
    Dialect,
    MetaData,
    String,
    TypeDecorator,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column
from uuid_utils.compat import uuid7

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: What PostgreSQL's text cannot hold, and file names, EXIF strings and error messages do.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> Any:
    """``value`` with what PostgreSQL refuses replaced: NUL, half surrogate pairs, numbers that are none."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return [storable(item) for item in value] if isinstance(value, list | tuple) else value


class Text(TypeDecorator[str]):
    """Text that can always be stored."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:  # noqa: D102
        return storable(value)


class Json(TypeDecorator[Any]):
    """JSON that can always be stored."""

    impl = JSONB
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:  # noqa: D102
        return storable(value)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:  # noqa: D102 - JSON's own operators
        return self.impl_instance.coerce_compared_value(op, value)


UuidKey = Annotated[UUID, mapped_column(primary_key=True, default=uuid7)]
Created = Annotated[datetime, mapped_column(server_default=func.now())]
JsonObject = Annotated[dict[str, Any], mapped_column(Json, server_default="{}", default=dict)]
JsonList = Annotated[list[Any], mapped_column(Json, server_default="[]", default=list)]


class Base(DeclarativeBase):
    """Root of the models."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map = {datetime: DateTime(timezone=True), str: Text()}  # noqa: RUF012 - SQLAlchemy's own idiom


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


def is_in(column: InstrumentedAttribute[str], values: Iterable[StrEnum]) -> ColumnElement[bool]:
    """``column IN ('a', 'b')`` with the values in the text.

    A partial index is used, and found by ON CONFLICT, only where the statement says its condition in so many
    words; a statement that is prepared with parameters does not.
    """
    return column.in_([literal_column(f"'{value}'") for value in sorted(values)])


def one_of(column: str, values: Iterable[StrEnum]) -> CheckConstraint:
    """A CHECK that ``column`` holds one of ``values``."""
    return CheckConstraint(f"{column} IN ({in_list(values)})", name=f"{column}_known")
