"""Thumbnails: what there is, and the way to the pictures."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path
from fastapi.responses import RedirectResponse

from api.dependencies import LinksDep, ResourcesDep
from api.errors import ANY_OPERATION, NOT_FOUND
from api.schemas.media import ThumbnailsAnswer, thumbnail
from db import thumbnails
from db.session import guarded

router = APIRouter(prefix="/api/v1/thumbnails", tags=["thumbnails"], responses={**ANY_OPERATION, **NOT_FOUND})

#: How long a signed URL opens; a browser may keep the redirect for half of it.
SIGNED_FOR = timedelta(minutes=15)

EntityType = Annotated[
    str, Path(pattern="^[a-z_]{1,50}$", description="`media_item`, or the entity it belongs to: `outfit`.")
]
Variant = Annotated[str, Path(pattern="^[a-z0-9_-]{1,50}$", description="`primary`, `medium` or `small`.")]


@router.get("/{entity_type}/{entity_id}", summary="Thumbnails of an entity")
def list_thumbnails(
    entity_type: EntityType, entity_id: UUID, held: ResourcesDep, links: LinksDep
) -> ThumbnailsAnswer:
    """The pictures there are, widest first. A duplicate answers with its original's."""
    with guarded(), held.sessions() as session:
        found = thumbnails.of_entity(session, entity_type, entity_id)
    return ThumbnailsAnswer(data=[thumbnail(picture, links) for picture in found])


@router.get(
    "/{entity_type}/{entity_id}/{variant}",
    summary="Open a thumbnail",
    status_code=HTTPStatus.TEMPORARY_REDIRECT,
    response_class=RedirectResponse,
    responses={307: {"description": "The picture is at `Location`, for a quarter of an hour."}},
)
def open_thumbnail(
    entity_type: EntityType, entity_id: UUID, variant: Variant, held: ResourcesDep
) -> RedirectResponse:
    """Redirects to the picture in the bucket, by a URL that is signed anew each time."""
    with guarded(), held.sessions() as session:
        picture = thumbnails.get(session, entity_type, entity_id, variant)
    url = held.store.presigned_get(held.settings.thumbnail_bucket, picture.file_reference, expires=SIGNED_FOR)
    fresh_for = int(SIGNED_FOR.total_seconds() / 2)
    return RedirectResponse(
        url, HTTPStatus.TEMPORARY_REDIRECT, headers={"Cache-Control": f"private, max-age={fresh_for}"}
    )
