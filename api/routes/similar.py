"""What looks like a media item."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from api.dependencies import LinksDep, ResourcesDep
from api.envelope import ErrorEnvelope
from api.errors import ANY_OPERATION, NOT_FOUND
from api.schemas.media import MediaItemSummary, tell
from api.schemas.similar import SimilarAnswer, SimilarItem, SimilarQuery
from db import jobs, similar, thumbnails
from db.session import guarded

router = APIRouter(prefix="/api/v1/media-items", tags=["media"], responses=ANY_OPERATION)

NOT_COMPARABLE: dict[int | str, dict[str, Any]] = {
    HTTPStatus.CONFLICT.value: {
        "model": ErrorEnvelope,
        "description": "It cannot be compared: it shows no picture, or is not described yet "
        "(NO_PERCEPTUAL_HASH), or there is too little in its picture (PICTURE_TOO_PLAIN).",
    }
}


@router.get(
    "/{media_item_id}/similar", summary="What looks like it", responses={**NOT_FOUND, **NOT_COMPARABLE}
)
def list_similar(
    media_item_id: UUID, query: Annotated[SimilarQuery, Query()], held: ResourcesDep, links: LinksDep
) -> SimilarAnswer:
    """Media items whose picture looks like this one's, nearest first: resized, recompressed, tinted copies.

    Items with the same bytes are not among them: `duplicates` of the item names those.
    """
    with guarded(), held.sessions() as session:
        found = similar.similar(session, media_item_id, threshold=query.threshold, limit=query.limit)
        items = [item for item, _ in found]
        pictures = thumbnails.of_items(session, items)
        newest = jobs.latest_jobs(session, [item.id for item in items])
        told = [
            SimilarItem(
                distance=distance,
                item=tell(MediaItemSummary, item, pictures[item.id], newest.get(item.id), links),
            )
            for item, distance in found
        ]
    return SimilarAnswer(data=told)
