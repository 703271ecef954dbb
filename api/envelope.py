"""The envelope of every answer: ``data`` or ``errors``, and ``metadata``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.0"

T = TypeVar("T")
#: A moment, told in UTC whatever the time zone of the server it comes from.
Utc = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


def current_request_id() -> str:
    """The id of the request being handled, as bound by ``api.middleware``."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


class Out(BaseModel):
    """Base of what the API answers with. Built from objects by their attributes."""

    model_config = ConfigDict(
        from_attributes=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Metadata(Out):
    """About the answer."""

    schema_version: str = SCHEMA_VERSION
    timestamp: Utc = Field(default_factory=lambda: datetime.now(UTC))
    request_id: str = Field(default_factory=current_request_id)
    """The value of the header ``X-Request-ID``; every log line of the request has it."""


class CursorMetadata(Metadata):
    """About a page of a list that grows without end."""

    limit: int
    next_cursor: str | None
    """Give it as ``cursor`` for the next page; null on the last one."""


class PageMetadata(Metadata):
    """About a numbered page."""

    page: int
    limit: int
    total: int
    """How many there are on all pages."""


class Envelope(Out, Generic[T]):
    """An answer with one thing. Subclassed with a name for each, by which the OpenAPI document calls it."""

    data: T
    metadata: Metadata = Field(default_factory=Metadata)


class CursorPage(Out, Generic[T]):
    """An answer with one page of a list, newest first."""

    data: list[T]
    metadata: CursorMetadata


class Page(Out, Generic[T]):
    """An answer with one numbered page."""

    data: T
    metadata: PageMetadata


class ErrorItem(Out):
    """One thing that is wrong."""

    code: str
    """Stable, for machines."""
    message: str
    """What is wrong and what to do, for people."""
    field: str | None = None
    """The part of the request that is wrong, where there is one."""


class ErrorEnvelope(Out):
    """An answer to a request that could not be served."""

    errors: list[ErrorItem]
    metadata: Metadata = Field(default_factory=Metadata)
