"""Near duplicates as the API tells them."""

from __future__ import annotations

from pydantic import Field

from api.dependencies import Input
from api.envelope import Envelope, Out
from api.schemas.media import MediaItemSummary
from pipeline.media.alike import THRESHOLD, WIDEST


class SimilarQuery(Input):
    """How near, and how many."""

    threshold: int = Field(THRESHOLD, ge=0, le=WIDEST)
    """Bits, of 256, by which the hashes may differ; 64 finds most crops by some hundredths too."""
    limit: int = Field(50, ge=1, le=200)
    """How many to answer with."""


class SimilarItem(Out):
    """A media item that looks like the one asked about."""

    distance: int
    """Bits by which the hashes differ; 0 is the same picture, or nearly so."""
    item: MediaItemSummary


class SimilarAnswer(Envelope[list[SimilarItem]]):
    """Media items that look alike, nearest first."""
