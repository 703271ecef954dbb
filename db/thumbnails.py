"""Reading thumbnails: those of an entity, and those that a media item answers with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from db.media import get_item
from db.models import MediaItem, Thumbnail
from pipeline.errors import NotFoundError
from pipeline.keys import MEDIA_ITEM


def of_items(session: Session, items: Iterable[MediaItem]) -> dict[UUID, list[Thumbnail]]:
    """The thumbnails of each item, widest first, by the item's id; a duplicate has those of its original.

    Those of a deleted item are nobody's.
    """
    source = {item.id: item.duplicate_of_id or item.id for item in items}
    found: dict[UUID, list[Thumbnail]] = {}
    query = _living().where(Thumbnail.media_item_id.in_(set(source.values())))
    for picture in session.scalars(query.order_by(Thumbnail.width.desc())):
        found.setdefault(picture.media_item_id, []).append(picture)
    return {item_id: found.get(original, []) for item_id, original in source.items()}


def of_entity(session: Session, entity_type: str, entity_id: UUID) -> Sequence[Thumbnail]:
    """The thumbnails of an entity's newest living media item that has any, widest first.

    A duplicate has its original's, also where that belongs to another entity. Raises NotFoundError when the
    entity has no living item.
    """
    if entity_type == MEDIA_ITEM:
        return of_items(session, [get_item(session, entity_id)])[entity_id]
    source = func.coalesce(MediaItem.duplicate_of_id, MediaItem.id)
    has_pictures = _living().where(Thumbnail.media_item_id == source).exists()
    item = session.scalar(
        select(MediaItem)
        .where(MediaItem.entity_type == entity_type, MediaItem.entity_id == entity_id)
        .where(MediaItem.deleted_at.is_(None))
        .order_by(has_pictures.desc(), MediaItem.id.desc())
        .limit(1)
    )
    if item is None:
        raise NotFoundError(f"Nothing is known of a {entity_type} {entity_id}.")
    return of_items(session, [item])[item.id]


def _living() -> Select[Thumbnail]:
    owner = aliased(MediaItem)
    return (
        select(Thumbnail).join(owner, owner.id == Thumbnail.media_item_id).where(owner.deleted_at.is_(None))
    )


def get(session: Session, entity_type: str, entity_id: UUID, variant: str) -> Thumbnail:
    """One variant of an entity's thumbnails. Raises NotFoundError, which names the variants there are."""
    pictures = of_entity(session, entity_type, entity_id)
    for picture in pictures:
        if picture.size_variant == variant:
            return picture
    known = ", ".join(picture.size_variant for picture in pictures) or "none yet"
    raise NotFoundError(f"The {entity_type} {entity_id} has no thumbnail {variant!r}; it has: {known}.")
