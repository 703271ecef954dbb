"""What endpoints are given: sessions, the object store, links, cursors."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_snake

from api.metrics import Metrics
from db.session import Sessions, make_engine, ping, session_factory
from pipeline.errors import InvalidRequestError
from pipeline.settings import Settings
from pipeline.storage import ObjectStore

#: Publications that may go on at a time: as many connections to SQS as Celery keeps (``broker_pool_limit``).
PUBLISHING = 10


@dataclass(frozen=True, slots=True)
class Resources:
    """What one application holds while it runs."""

    settings: Settings
    sessions: Sessions
    store: ObjectStore
    metrics: Metrics
    ping_database: Callable[[], None]  #: raises InfrastructureError
    close: Callable[[], None]  #: gives the connections back
    publishing: BoundedSemaphore = field(default_factory=partial(BoundedSemaphore, PUBLISHING))
    reconciling: Lock = field(default_factory=Lock)  #: held while the buckets are looked through

    @classmethod
    def open(cls, settings: Settings, metrics: Metrics) -> Resources:
        """Connect to nothing yet: every part connects when it is first used."""
        engine = make_engine(settings.database_url.get_secret_value(), pool_size=settings.db_pool_size)
        sessions = session_factory(engine)
        metrics.watch_queues(sessions, silent=settings.worker_silent)
        return cls(settings, sessions, ObjectStore(settings), metrics, partial(ping, engine), engine.dispose)


async def resources(request: Request) -> Resources:
    """The resources of the running application."""
    found: Resources = request.app.state.resources
    return found


async def bind_ids(request: Request) -> None:
    """Put the ids in the path on every log line of the request."""
    ids = {name: value for name, value in request.path_params.items() if name.endswith("_id")}
    structlog.contextvars.bind_contextvars(**ids)


ResourcesDep = Annotated[Resources, Depends(resources)]


@dataclass(frozen=True, slots=True)
class Links:
    """Builds the URLs in answers."""

    base: str  #: without a slash at the end

    def thumbnail(self, entity_type: str, entity_id: UUID, variant: str) -> str:
        """Where one picture opens."""
        return f"{self.base}/api/v1/thumbnails/{entity_type}/{entity_id}/{variant}"


async def links(request: Request, resources: ResourcesDep) -> Links:
    """Links to the URL under which clients reach the API: as set, or as this client did."""
    return Links((resources.settings.api_url or str(request.base_url)).rstrip("/"))


LinksDep = Annotated[Links, Depends(links)]


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("The character NUL is not allowed.")
    return text


#: Text that PostgreSQL can hold.
Text = Annotated[str, AfterValidator(_without_nul)]


class Input(BaseModel):
    """Base of bodies and query strings: ``snake_case`` or ``camelCase``, and no name that means nothing."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _to_snake_case(cls, given: Any) -> Any:
        return {to_snake(name): value for name, value in given.items()} if isinstance(given, dict) else given


class CursorQuery(Input):
    """The part of a query string that asks for a page of an endless list."""

    limit: int = Field(50, ge=1, le=200)
    """How many to answer with."""
    cursor: str | None = Field(None, max_length=100)
    """The ``next_cursor`` of the page before."""


class PageQuery(Input):
    """The part of a query string that asks for a numbered page."""

    page: int = Field(1, ge=1, le=10_000)
    """Counted from 1."""
    limit: int = Field(20, ge=1, le=100)
    """How many to answer with."""


def encode_cursor(listing: str, last: UUID) -> str:
    """The cursor of ``listing`` (its name) that goes on after ``last``."""
    return base64.urlsafe_b64encode(last.bytes + _seal(listing, last.bytes)).decode().rstrip("=")


def decode_cursor(listing: str, cursor: str | None) -> UUID | None:
    """Where to go on; None for the first page. Raises InvalidRequestError for no cursor of ``listing``."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 20 or raw[16:] != _seal(listing, raw[:16]):  # noqa: PLR2004 - 16 of the id, 4 of the seal
        raise InvalidRequestError(
            "This is no cursor of this list; use the next_cursor of the page before as it is, or none.",
            field="cursor",
        )
    return UUID(bytes=raw[:16])


def _seal(listing: str, identifier: bytes) -> bytes:
    """Finds a cursor that was cut, typed wrong or taken from another list; it guards no secret."""
    return zlib.crc32(listing.encode() + identifier).to_bytes(4)
