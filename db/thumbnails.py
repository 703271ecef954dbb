"""Reading thumbnails: those of an entity, and those that a media item answers with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.media import get_item
from db.models import MediaItem, Thumbnail
from pipeline.errors import NotFoundError
from pipeline.keys import MEDIA_ITEM


def of_items(session: Session, items: Iterable[MediaItem]) -> dict[UUID, list[Thumbnail]]:
    """The thumbnails of each item, widest first, by the item's id; a duplicate has those of its original."""
    source = {item.id: item.duplicate_of_id or item.id for item in items}
    found: dict[UUID, list[Thumbnail]] = {}
    query = select(Thumbnail).where(Thumbnail.media_item_id.in_(set(source.values())))
    for picture in session.scalars(query.order_by(Thumbnail.width.desc())):
        found.setdefault(picture.media_item_id, []).append(picture)
    return {item_id: found.get(original, []) for item_id, original in source.items()}


def of_entity(session: Session, entity_type: str, entity_id: UUID) -> Sequence[Thumbnail]:
    """The thumbnails of an entity, widest first; those of its newest media item where it has none of its own.

    So an entity whose only file is a duplicate has its original's. Raises NotFoundError when nothing is known
    of the entity.
    """
    if entity_type == MEDIA_ITEM:
        return of_items(session, [get_item(session, entity_id)])[entity_id]
    pictures = session.scalars(
        select(Thumbnail)
        .where(Thumbnail.entity_type == entity_type, Thumbnail.entity_id == entity_id)
        .order_by(Thumbnail.width.desc())
    ).all()
    if pictures:
        return pictures
    item = session.scalar(
        select(MediaItem)
        .where(MediaItem.entity_type == entity_type, MediaItem.entity_id == entity_id)
        .where(MediaItem.deleted_at.is_(None))
        .order_by(MediaItem.id.desc())
        .limit(1)
    )
    if item is None:
        raise NotFoundError(f"Nothing is known of a {entity_type} {entity_id}.")
    return of_items(session, [item])[item.id]


def get(session: Session, entity_type: str, entity_id: UUID, variant: str) -> Thumbnail:
    """One variant of an entity's thumbnails. Raises NotFoundError, which names the variants there are."""
    pictures = of_entity(session, entity_type, entity_id)
    for picture in pictures:
        if picture.size_variant == variant:
            return picture
    known = ", ".join(picture.size_variant for picture in pictures) or "none yet"
    raise NotFoundError(f"The {entity_type} {entity_id} has no thumbnail {variant!r}; it has: {known}.")
