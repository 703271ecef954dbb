"""What the tables say of a listing of a bucket: items without object, objects that nothing points at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import collate, func, select, text
from sqlalchemy.orm import Session

from db.models import Attempt, MediaItem, QueueRow, Thumbnail
from pipeline.states import FINAL

ITEMS = 2_000  #: living items that are compared at once


@dataclass(frozen=True, slots=True)
class Living:
    """A media item that is not deleted."""

    id: UUID
    key: str
    etag: str | None


def living_between(
    session: Session, bucket: str, after: str, upto: str | None, *, limit: int = ITEMS
) -> Sequence[Living]:
    """At most ``limit`` living items whose keys lie in (after, upto], in S3's order of keys."""
    # S3 lists by the bytes of the keys, which is what these operators compare, whatever the collation.
    query = select(MediaItem.id, MediaItem.key, MediaItem.etag).where(
        MediaItem.bucket == bucket, MediaItem.deleted_at.is_(None), MediaItem.key.op("~>~")(after)
    )
    if upto is not None:
        query = query.where(MediaItem.key.op("~<=~")(upto))
    query = query.order_by(collate(MediaItem.key, "C")).limit(limit)
    return [Living(*found) for found in session.execute(query)]


def ended(
    session: Session, bucket: str, keys: Collection[str]
) -> dict[str, list[tuple[str | None, datetime]]]:
    """ETags and times of deletion of the deleted items at ``keys``, by key."""
    found: dict[str, list[tuple[str | None, datetime]]] = {}
    for key, etag, deleted_at in session.execute(
        select(MediaItem.key, MediaItem.etag, MediaItem.deleted_at).where(
            MediaItem.bucket == bucket, MediaItem.key.in_(keys), MediaItem.deleted_at.is_not(None)
        )
    ):
        if deleted_at is not None:
            found.setdefault(key, []).append((etag, deleted_at))
    return found


def orphans(session: Session, tokens: Mapping[str, int]) -> list[str]:
    """Of pictures (key: token of the attempt that made it), those that nothing points at nor ever will.

    The attempt that made one is over: its row has a newer token, is final, or is gone. What has a token that
    was never given out belongs to another state of this database, and is left alone.
    """
    # In this order: an attempt that settles between the two has its pictures pointed at in the second.
    rows = {
        token: (current, status)
        for token, current, status in session.execute(
            select(Attempt.token, QueueRow.token, QueueRow.status)
            .join(QueueRow, QueueRow.id == Attempt.row_id)
            .where(Attempt.token.in_(set(tokens.values())))
        )
    }
    pointed_at = set(
        session.scalars(select(Thumbnail.file_reference).where(Thumbnail.file_reference.in_(tokens)))
    )
    newest = session.scalar(
        select(func.coalesce(text("last_value"), 0)).select_from(text("processing_token_seq"))
    )

    def over(token: int) -> bool:
        current, status = rows.get(token, (None, None))
        return status is None or status in FINAL or (current is not None and current > token)

    return [
        key
        for key, token in tokens.items()
        if key not in pointed_at and token <= (newest or 0) and over(token)
    ]
