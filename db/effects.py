"""What each stage's value changes in the database: one function a stage, run in the settling transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import sidecars, similar
from db.models import MediaItem, SearchDocument, Thumbnail
from db.queue import originals
from db.queue.settle import Effect
from pipeline.errors import TransientStageError
from pipeline.media.kinds import Kind
from pipeline.stages.audit import AuditValue
from pipeline.stages.base import Asset
from pipeline.stages.dedupe import DedupeValue
from pipeline.stages.index import IndexValue, document_of
from pipeline.stages.ingest import IngestValue
from pipeline.stages.metadata import MetadataValue
from pipeline.workflows import StageName


@dataclass(frozen=True, slots=True)
class Stored:
    """A rendition that is in the thumbnail bucket, and that nothing points at yet."""

    variant: str
    key: str
    width: int
    height: int
    size: int  #: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Done:
    """What a stage's run left: the asset it was about, its value, its warnings, and the objects it stored."""

    asset: Asset
    value: BaseModel
    warnings: tuple[str, ...] = ()
    stored: tuple[Stored, ...] = ()


def entity_of(asset: Asset) -> tuple[str, UUID]:
    """The entity that pictures and search documents belong to: the asset's, or the media item itself."""
    if asset.entity_id is None:
        return "media_item", asset.media_item_id
    return asset.entity_type, asset.entity_id


def apply(session: Session, stage: str, done: Done) -> Effect:
    """Write what ``stage`` found. Runs after the fence held, in its transaction."""
    return EFFECTS[StageName(stage)](session, done)


def _ingest(session: Session, done: Done) -> Effect:
    value = _value(done, IngestValue)
    _change_item(
        session,
        done,
        mime_type=value.mime_type,
        kind=value.kind,
        content_type=value.content_type,
        size_bytes=value.size,
        sha256=value.sha256,
        entity_type=value.entity_type,
        entity_id=value.entity_id,
        warnings=list(done.warnings),
    )
    return Effect()


def _dedupe(session: Session, done: Done) -> Effect:
    original = originals.claim_hash(session, done.asset.media_item_id, _value(done, DedupeValue).sha256)
    if original is None:
        return Effect()
    if done.asset.kind == Kind.SIDECAR:
        _tell(session, done.asset.bucket, done.asset.key)
    # Findable by its own name, though no later stage runs for it.
    _put_document(session, done, document_of(done.asset))
    return Effect(skip_rest=True, summary={"duplicate_of_id": str(original), "bytes_saved": done.asset.size})


def _metadata(session: Session, done: Done) -> Effect:
    asset = done.asset
    value = sidecars.join(session, asset, _value(done, MetadataValue))
    latitude, longitude = value.gps or (None, None)
    described = {
        "width": value.width,
        "height": value.height,
        "duration_seconds": value.duration_seconds,
        "captured_at": value.captured_at,
        "latitude": latitude,
        "longitude": longitude,
        "thumbhash": value.thumbhash,
        "title": value.title,
        "text": value.text,
        "details": value.details,
    }
    originals.describe(session, asset.media_item_id, asset.sha256 or "", described)
    similar.put(session, asset.media_item_id, value.phash, value.phash_quality)
    if asset.kind == Kind.SIDECAR:
        copies = (MediaItem.duplicate_of_id == asset.media_item_id, MediaItem.deleted_at.is_(None))
        _tell(session, asset.bucket, asset.key, *session.scalars(select(MediaItem.key).where(*copies)))
    if done.warnings:
        before = session.scalar(select(MediaItem.warnings).where(MediaItem.id == done.asset.media_item_id))
        _change_item(session, done, warnings=[*dict.fromkeys([*(before or []), *done.warnings])])
    return Effect()


def _tell(session: Session, bucket: str, *keys: str) -> None:
    """Have the files read again that the sidecars at ``keys`` tell of."""
    told = [sidecars.tell(session, bucket, key) for key in sorted(keys)]  # each locks a folder: in one order
    if not all(told):
        raise TransientStageError(
            "A file of this sidecar is being read again for another one; this one's turn comes after.",
            code="SIDECAR_WAITS",
        )


def _thumbnails(session: Session, done: Done) -> Effect:
    entity_type, entity_id = entity_of(done.asset)
    for stored in done.stored:
        current: dict[str, Any] = {
            "entity_type": entity_type,
            "entity_id": entity_id,
            "file_reference": stored.key,
            "width": stored.width,
            "height": stored.height,
            "file_size_bytes": stored.size,
            "content_type": stored.content_type,
            "processed_at": func.now(),
        }
        session.execute(
            insert(Thumbnail)
            .values(media_item_id=done.asset.media_item_id, size_variant=stored.variant, **current)
            .on_conflict_do_update(index_elements=["media_item_id", "size_variant"], set_=current)
        )
    return Effect()


def _index(session: Session, done: Done) -> Effect:
    _put_document(session, done, _value(done, IndexValue))
    return Effect()


def _audit(_: Session, done: Done) -> Effect:
    return Effect(summary=_value(done, AuditValue).summary)


_V = TypeVar("_V", bound=BaseModel)


def _value(done: Done, kind: type[_V]) -> _V:
    if not isinstance(done.value, kind):
        msg = f"a stage returned {type(done.value).__name__} where {kind.__name__} was registered"
        raise TypeError(msg)
    return done.value


def _change_item(session: Session, done: Done, **values: Any) -> None:
    session.execute(
        update(MediaItem)
        .where(MediaItem.id == done.asset.media_item_id)
        .values({getattr(MediaItem, name): value for name, value in values.items()})
        .execution_options(synchronize_session=False)
    )


def _put_document(session: Session, done: Done, value: IndexValue) -> None:
    entity_type, entity_id = entity_of(done.asset)
    current = {"entity_type": entity_type, "entity_id": entity_id, **value.model_dump(mode="json")}
    # What is written inside may be long: it goes from table to table.
    current["body"] = select(MediaItem.text).where(MediaItem.id == done.asset.media_item_id).scalar_subquery()
    session.execute(
        insert(SearchDocument)
        .values(media_item_id=done.asset.media_item_id, **current)
        .on_conflict_do_update(index_elements=["media_item_id"], set_=current)
    )


EFFECTS: dict[StageName, Callable[[Session, Done], Effect]] = {
    StageName.INGEST: _ingest,
    StageName.DEDUPE: _dedupe,
    StageName.METADATA: _metadata,
    StageName.THUMBNAILS: _thumbnails,
    StageName.INDEX: _index,
    StageName.AUDIT: _audit,
}
