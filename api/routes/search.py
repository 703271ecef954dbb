"""Search."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Links, LinksDep, ResourcesDep
from api.envelope import PageMetadata
from api.errors import ANY_OPERATION
from api.schemas.media import SearchHit, SearchPage, SearchQuery, SearchResults
from db import models, thumbnails
from db.search import FACETS, Hit, search
from db.session import guarded
from pipeline.keys import MEDIA_ITEM

router = APIRouter(prefix="/api/v1", tags=["search"], responses=ANY_OPERATION)


@router.get("/search", summary="Find media items")
def search_media_items(
    query: Annotated[SearchQuery, Query()], held: ResourcesDep, links: LinksDep
) -> SearchPage:
    """Media items by their names, camera, kind, dates and the text found inside, best first.

    All words must match; `"two words"` is a phrase, `or` an alternative, `-word` an exclusion, and the last
    word may be unfinished: `moun` finds mountains. Duplicates are found by their own names.
    """
    only = {name: value for name in FACETS if (value := getattr(query, name)) is not None}
    with guarded(), held.sessions() as session:
        found = search(session, query.q, limit=query.limit, offset=(query.page - 1) * query.limit, only=only)
        pictures = thumbnails.of_items(session, [hit.item for hit in found.hits])
    results = SearchResults(
        hits=[_told(hit, pictures[hit.item.id], links) for hit in found.hits], facets=found.facets
    )
    return SearchPage(
        data=results, metadata=PageMetadata(page=query.page, limit=query.limit, total=found.total)
    )


def _told(hit: Hit, pictures: list[models.Thumbnail], links: Links) -> SearchHit:
    item = hit.item
    smallest = pictures[-1] if pictures else None  # they come widest first
    return SearchHit(
        media_item_id=item.id,
        key=item.key,
        title=hit.title,
        kind=item.kind,
        mime_type=item.mime_type,
        captured_at=item.captured_at,
        duplicate_of_id=item.duplicate_of_id,
        thumbnail_url=smallest and links.thumbnail(MEDIA_ITEM, smallest.media_item_id, smallest.size_variant),
        rank=hit.rank,
    )
