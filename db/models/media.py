"""Media items, the pictures derived from them, and what makes them findable."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Computed,
    ForeignKey,
    Index,
    UniqueConstraint,
    collate,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Created, Json, JsonList, JsonObject, SoftDeleted, Touched, UuidKey


def sequence(item: type[MediaItem]) -> ColumnElement[str]:
    """Sequencers in the order of ``pipeline.events.precedes``, as ix_media_items_newest has them."""
    return func.rtrim(func.upper(collate(item.sequencer, "C")), literal_column("'0'"))


class MediaItem(SoftDeleted, Touched, Base):
    """One object version in the bucket."""

    __tablename__ = "media_items"
    __table_args__ = (
        UniqueConstraint("bucket", "key", "version_id"),
        CheckConstraint("size_bytes >= 0", name="size_not_negative"),
        CheckConstraint("duplicate_of_id <> id", name="not_its_own_duplicate"),
        CheckConstraint(
            "NOT (holds_hash AND (sha256 IS NULL OR duplicate_of_id IS NOT NULL))", name="holder_is_original"
        ),
        CheckConstraint("NOT (holds_hash AND deleted_at IS NOT NULL)", name="holder_lives"),
        # The first holder of a hash wins here, whatever two workers read a moment before.
        Index("uq_media_items_hash_holder", "sha256", unique=True, postgresql_where="holds_hash"),
        Index("ix_media_items_sha256", "sha256", postgresql_where="sha256 IS NOT NULL"),
        Index(
            "ix_media_items_duplicate_of_id",
            "duplicate_of_id",
            postgresql_where="duplicate_of_id IS NOT NULL",
        ),
        Index("ix_media_items_entity", "entity_type", "entity_id", postgresql_where="entity_id IS NOT NULL"),
        # Ordered by the keys' bytes, as S3's listing of the bucket is, with which it is compared.
        Index(
            "ix_media_items_living_key",
            "bucket",
            "key",
            postgresql_ops={"key": "varchar_pattern_ops"},
            postgresql_where="deleted_at IS NULL",
        ),
        # What is to be pruned, oldest first: what was read carries something, the others are a mark alone.
        Index("ix_media_items_ended", "deleted_at", postgresql_where="deleted_at IS NOT NULL"),
        Index(
            "ix_media_items_ended_read",
            "deleted_at",
            postgresql_where="deleted_at IS NOT NULL AND sha256 IS NOT NULL",
        ),
    )

    id: Mapped[UuidKey]
    bucket: Mapped[str]
    key: Mapped[str]
    version_id: Mapped[str] = mapped_column(
        default="", server_default=""
    )  #: empty: the bucket is not versioned
    sequencer: Mapped[str] = mapped_column(default="", server_default="")  #: S3's order of events for one key
    etag: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    content_type: Mapped[str | None]
    entity_type: Mapped[str] = mapped_column(default="media_item", server_default="media_item")
    entity_id: Mapped[UUID | None]
    mime_type: Mapped[str | None]
    kind: Mapped[str | None]
    sha256: Mapped[str | None]
    holds_hash: Mapped[bool] = mapped_column(default=False, server_default="false")
    duplicate_of_id: Mapped[UUID | None] = mapped_column(ForeignKey("media_items.id", ondelete="SET NULL"))
    width: Mapped[int | None]  #: pixels, orientation applied
    height: Mapped[int | None]
    duration_seconds: Mapped[float | None]
    captured_at: Mapped[datetime | None]
    latitude: Mapped[float | None]  #: degrees
    longitude: Mapped[float | None]
    thumbhash: Mapped[str | None]  #: base64
    title: Mapped[str | None]  #: as the file says
    #: what is written inside, for the search alone
    text: Mapped[str] = mapped_column(default="", server_default="", deferred=True)
    #: what the metadata stage found, as it found it ("metadata" is taken by SQLAlchemy)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", Json, server_default="{}", default=dict)
    warnings: Mapped[JsonList]
    created_at: Mapped[Created]


# Its last entry of a key is the version that an event has to be newer than.
Index("ix_media_items_newest", MediaItem.bucket, MediaItem.key, sequence(MediaItem), MediaItem.id)


class Thumbnail(Base):
    """The current object of one variant of one media item. The objects themselves never change.

    The entity is the item's; which item answers for an entity of several files is for the reader to say.
    """

    __tablename__ = "thumbnails"
    __table_args__ = (
        UniqueConstraint("media_item_id", "size_variant"),
        Index("ix_thumbnails_file_reference", "file_reference"),
    )

    thumbnail_id: Mapped[UuidKey]
    entity_type: Mapped[str]
    entity_id: Mapped[UUID]
    size_variant: Mapped[str]
    media_item_id: Mapped[UUID] = mapped_column(ForeignKey("media_items.id", ondelete="CASCADE"))
    file_reference: Mapped[str]  #: key in the thumbnail bucket
    width: Mapped[int]
    height: Mapped[int]
    file_size_bytes: Mapped[int] = mapped_column(BigInteger)
    content_type: Mapped[str] = mapped_column(default="image/jpeg", server_default="image/jpeg")
    created_at: Mapped[Created]
    processed_at: Mapped[Created]


class SearchDocument(Touched, Base):
    """What a media item can be found by."""

    __tablename__ = "search_documents"
    __table_args__ = (Index("ix_search_documents_document", "document", postgresql_using="gin"),)

    media_item_id: Mapped[UUID] = mapped_column(
        ForeignKey("media_items.id", ondelete="CASCADE"), primary_key=True
    )
    entity_type: Mapped[str]
    entity_id: Mapped[UUID]
    title: Mapped[str]  #: weight A: names
    keywords: Mapped[str] = mapped_column(
        default="", server_default=""
    )  #: weight B: camera, kind, type, year
    body: Mapped[str] = mapped_column(default="", server_default="")  #: weight D: text found inside
    facets: Mapped[JsonObject]
    document: Mapped[Any] = mapped_column(
        TSVECTOR,
        Computed(
            "setweight(to_tsvector('simple', title), 'A') || setweight(to_tsvector('english', title), 'A')"
            " || setweight(to_tsvector('simple', keywords), 'B')"
            " || setweight(to_tsvector('english', body), 'D')",
            persisted=True,
        ),
    )
