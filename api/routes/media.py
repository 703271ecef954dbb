"""Media items."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.dependencies import LinksDep, ResourcesDep, decode_cursor, encode_cursor
from api.envelope import CursorMetadata
from api.errors import ANY_OPERATION, NOT_FOUND
from api.schemas.media import (
    MediaItem,
    MediaItemAnswer,
    MediaItemReference,
    MediaItemsPage,
    MediaItemsQuery,
    MediaItemSummary,
    tell,
)
from db import jobs, media, thumbnails
from db.session import guarded

router = APIRouter(prefix="/api/v1/media-items", tags=["media"], responses=ANY_OPERATION)

#: Duplicates that the answer for one item names at most.
DUPLICATES_SHOWN = 100


@router.get("", summary="List media items")
def list_media_items(
    query: Annotated[MediaItemsQuery, Query()], held: ResourcesDep, links: LinksDep
) -> MediaItemsPage:
    """Media items that are not deleted, newest first, each with its thumbnails and its newest job."""
    with guarded(), held.sessions() as session:
        found = media.list_items(
            session,
            limit=query.limit + 1,
            before=decode_cursor("media-items", query.cursor),
            kind=query.kind,
            status=query.status,
            key_prefix=query.key_prefix,
        )
        items = found[: query.limit]
        pictures = thumbnails.of_items(session, items)
        newest = jobs.latest_jobs(session, [item.id for item in items])
        page = [tell(MediaItemSummary, item, pictures[item.id], newest.get(item.id), links) for item in items]
    following = encode_cursor("media-items", page[-1].id) if len(found) > query.limit else None
    return MediaItemsPage(data=page, metadata=CursorMetadata(limit=query.limit, next_cursor=following))


@router.get("/{media_item_id}", summary="One media item", responses=NOT_FOUND)
def get_media_item(media_item_id: UUID, held: ResourcesDep, links: LinksDep) -> MediaItemAnswer:
    """What is known of the item: metadata, thumbnails, its duplicates or its original, its newest job."""
    with guarded(), held.sessions() as session:
        item = media.get_item(session, media_item_id)
        pictures = thumbnails.of_items(session, [item])[item.id]
        newest = jobs.latest_jobs(session, [item.id]).get(item.id)
        told = tell(MediaItem, item, pictures, newest, links)
        if item.duplicate_of_id is not None:
            original = media.find_item(session, item.duplicate_of_id)
            told.duplicate_of = None if original is None else MediaItemReference.model_validate(original)
        same = media.duplicates_of(session, item.id, limit=DUPLICATES_SHOWN)
        told.duplicates = [MediaItemReference.model_validate(duplicate) for duplicate in same]
    return MediaItemAnswer(data=told)
