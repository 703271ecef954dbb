"""Media items, thumbnails and search hits as the API tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from uuid import UUID

from pydantic import Field

from api.dependencies import CursorQuery, Links, PageQuery, Text
from api.envelope import CursorPage, Envelope, Out, Page, Utc
from api.schemas.jobs import JobSummary
from db import models
from pipeline.keys import MEDIA_ITEM
from pipeline.states import JobStatus


class MediaItemsQuery(CursorQuery):
    """Which media items to list."""

    kind: Text | None = None
    """``image``, ``vector``, ``video``, ``audio``, ``document`` or ``sidecar``."""
    status: JobStatus | None = None
    """Status of the item's newest job."""
    key_prefix: Text | None = Field(None, max_length=1024)
    """How the key begins."""


class SearchQuery(PageQuery):
    """What to look for."""

    q: Text = Field(min_length=1, max_length=200, pattern=r"\S")
    """Words, "phrases", ``or``, ``-not``. The last word may be unfinished."""
    kind: Text | None = None
    mime_type: Text | None = None
    year: Text | None = None
    camera: Text | None = None


class Thumbnail(Out):
    """One picture derived from a media item."""

    entity_type: str
    entity_id: UUID
    variant: str
    url: str
    """Opens the picture, by a redirect that is signed anew each time."""
    key: str
    """In the thumbnail bucket."""
    width: int
    height: int
    bytes: int
    content_type: str
    processed_at: Utc


class Gps(Out):
    """A place on Earth."""

    latitude: float
    """Degrees, north is positive."""
    longitude: float
    """Degrees, east is positive."""


class MediaItemReference(Out):
    """A media item, named."""

    id: UUID
    key: str
    created_at: Utc


class MediaItemSummary(MediaItemReference):
    """One object in the bucket, and what became of it."""

    bucket: str
    version_id: str
    size_bytes: int | None
    kind: str | None
    mime_type: str | None
    sha256: str | None
    title: str | None
    """As the file says."""
    width: int | None
    """Pixels, upright; null where there is no picture in it."""
    height: int | None
    captured_at: Utc | None
    gps: Gps | None = None
    thumbhash: str | None
    """A placeholder for the picture, base64."""
    duplicate_of_id: UUID | None
    thumbnails: list[Thumbnail] = Field(default_factory=list)
    """A duplicate answers with its original's."""
    latest_job: JobSummary | None = None


class MediaItem(MediaItemSummary):
    """Everything known of one object in the bucket."""

    etag: str | None
    content_type: str | None
    """As the uploader said; ``mime_type`` is what the bytes say."""
    entity_type: str
    entity_id: UUID | None
    """Null: it belongs to no entity of the catalogue."""
    duration_seconds: float | None
    metadata: dict[str, Any] = Field(validation_alias="details")
    """What the file says of itself, by its kind: docs/metadata.md."""
    warnings: list[Any]
    updated_at: Utc
    duplicate_of: MediaItemReference | None = None
    """The original with the same bytes."""
    duplicates: list[MediaItemReference] = Field(default_factory=list)
    """Items with the same bytes as this original, oldest first, at most 100."""


class MediaItemAnswer(Envelope[MediaItem]):
    """One media item."""


class MediaItemsPage(CursorPage[MediaItemSummary]):
    """Media items, newest first."""


_Told = TypeVar("_Told", bound=MediaItemSummary)


def tell(
    shape: type[_Told],
    item: models.MediaItem,
    pictures: Iterable[models.Thumbnail],
    job: models.ProcessingJob | None,
    links: Links,
) -> _Told:
    """``item`` in ``shape``, with its pictures and its newest job."""
    told = shape.model_validate(item)
    told.thumbnails = [thumbnail(picture, links) for picture in pictures]
    if item.latitude is not None and item.longitude is not None:
        told.gps = Gps(latitude=item.latitude, longitude=item.longitude)
    if job is not None:
        told.latest_job = JobSummary.model_validate(job)
    return told


class SearchHit(Out):
    """One media item that matches."""

    media_item_id: UUID
    key: str
    title: str
    kind: str | None
    mime_type: str | None
    captured_at: Utc | None
    duplicate_of_id: UUID | None
    thumbnail_url: str | None
    """The smallest picture; null when there is none."""
    rank: float
    """Higher is better; comparable within one query only."""


class SearchResults(Out):
    """A page of hits, best first, and what all hits have in common."""

    hits: list[SearchHit]
    facets: dict[str, dict[str, int]]
    """Facet, value, number of hits that have it. Give one as a parameter to see only those."""


class SearchPage(Page[SearchResults]):
    """Hits, best first."""


class ThumbnailsAnswer(Envelope[list[Thumbnail]]):
    """Pictures, widest first."""


def thumbnail(picture: models.Thumbnail, links: Links) -> Thumbnail:
    """``picture`` with the URL under which it opens."""
    return Thumbnail(
        entity_type=picture.entity_type,
        entity_id=picture.entity_id,
        variant=picture.size_variant,
        url=links.thumbnail(MEDIA_ITEM, picture.media_item_id, picture.size_variant),
        key=picture.file_reference,
        width=picture.width,
        height=picture.height,
        bytes=picture.file_size_bytes,
        content_type=picture.content_type,
        processed_at=picture.processed_at,
    )
