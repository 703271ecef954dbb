"""Near duplicates: perceptual hashes, what looks like an item, and all that look alike in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Integer,
    Subquery,
    any_,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from db.media import get_item
from db.models import MediaItem, PerceptualHash
from db.models.similar import WORD_SQL, Bits
from db.session import Sessions
from pipeline.errors import ConflictError
from pipeline.media import alike
from pipeline.media.alike import THRESHOLD
from pipeline.media.pdq import WORTH_COMPARING

#: Hashes that are read at once for the groups.
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Alike:
    """One item of a group of near duplicates."""

    id: UUID
    key: str
    width: int | None  #: pixels, upright
    height: int | None
    size_bytes: int | None
    quality: int  #: of the hash, 0 to 100
    created_at: datetime
    distance: int  #: bits by which its hash differs from that of the group's best


@dataclass(frozen=True, slots=True)
class Groups:
    """What looks alike."""

    groups: int  #: how many there are, shown or not
    items: int  #: how many items are in them
    shown: list[list[Alike]]  #: the largest groups, each with its best item first


def put(session: Session, media_item_id: UUID, phash: str | None, quality: int | None) -> None:
    """Store the item's hash (64 hexadecimal digits), or that it has none, in place of what there was."""
    if phash is None or quality is None:
        session.execute(delete(PerceptualHash).where(PerceptualHash.media_item_id == media_item_id))
        return
    current = {"hash": alike.coarse_first(bytes.fromhex(phash)), "quality": quality}
    session.execute(
        insert(PerceptualHash)
        .values(media_item_id=media_item_id, **current)
        .on_conflict_do_update(index_elements=["media_item_id"], set_=current)
    )


def similar(
    session: Session, media_item_id: UUID, *, threshold: int = THRESHOLD, limit: int = 50
) -> list[tuple[MediaItem, int]]:
    """At most ``limit`` living items that look like this one, nearest first, with the distance in bits.

    ``threshold`` is in bits, at most ``alike.WIDEST``: whatever differs in 27 bits or less is found, nearly
    all up to 31, most beyond (see ``pipeline.media.alike``). A duplicate is compared by its original's hash;
    neither it nor what has the same bytes is in the answer.

    Raises:
        NotFoundError: there is no such item, or it was deleted.
        ConflictError: NO_PERCEPTUAL_HASH or PICTURE_TOO_PLAIN.
    """
    item = get_item(session, media_item_id)
    original = item.duplicate_of_id or item.id
    found = _near(_hash_of(session, item), threshold)
    # Processes that help to search cost more than the search.
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    rows = session.execute(
        select(MediaItem, found.c.distance)
        .join(found, found.c.media_item_id == MediaItem.id)
        .where(MediaItem.deleted_at.is_(None), MediaItem.duplicate_of_id.is_(None), MediaItem.id != original)
        .order_by(found.c.distance, found.c.media_item_id)
        .limit(limit)
    )
    return [(near, distance) for near, distance in rows]


def groups(sessions: Sessions, *, threshold: int = THRESHOLD, limit: int | None = None) -> Groups:
    """All living items that look alike, in groups, the ``limit`` largest of which are told.

    Who is within ``threshold`` bits of one in a group belongs to it. The best has the most pixels, then the
    most bytes, then the best hash, then is the oldest. Compares in memory, in no transaction: a million take
    minutes of one processor, and some 400 MB.
    """
    with sessions() as session:
        ids, hashes = _all(session)
    together = alike.groups(hashes, threshold)
    with sessions() as session:
        shown = [_told(session, [ids[place] for place in group]) for group in together[:limit]]
    # Those deleted meanwhile are left out of what is told.
    return Groups(len(together), sum(map(len, together)), [group for group in shown if len(group) > 1])


def _hash_of(session: Session, item: MediaItem) -> bytes:
    found = session.get(PerceptualHash, item.duplicate_of_id or item.id)
    if found is None:
        raise ConflictError(
            f"The media item {item.id} has no perceptual hash: only what shows a picture gets one, when its"
            " metadata stage completes.",
            code="NO_PERCEPTUAL_HASH",
        )
    if found.quality < WORTH_COMPARING:
        raise ConflictError(
            f"There is too little in the picture of the media item {item.id} to compare it with others: its"
            f" hash has quality {found.quality}, and {WORTH_COMPARING} is the least.",
            code="PICTURE_TOO_PLAIN",
        )
    return found.hash


def _near(bits: bytes, threshold: int) -> Subquery:
    """Items within ``threshold`` of ``bits``, found by the indexes on the words."""
    distance = _distance(bits)
    near_words = zip(WORD_SQL, alike.near_words(bits), strict=True)
    return (
        select(PerceptualHash.media_item_id, distance.label("distance"))
        .where(
            or_(*(literal_column(sql) == any_(literal(words, ARRAY(Integer))) for sql, words in near_words)),
            PerceptualHash.quality >= WORTH_COMPARING,
            distance <= threshold,
        )
        # Sorted here: hashes first, items by their keys as far as the limit, is then the plan that is chosen.
        .order_by("distance", PerceptualHash.media_item_id)
        .subquery("near")
    )


def _distance(bits: bytes) -> ColumnElement[int]:
    return func.bit_count(
        PerceptualHash.hash.op("#", return_type=Bits())(literal(bits, Bits())), type_=Integer()
    )


def _all(session: Session) -> tuple[list[UUID], np.ndarray[tuple[int, int], np.dtype[np.uint8]]]:
    """The ids and hashes (n x 32 bytes) of all living items that can be compared."""
    ids: list[UUID] = []
    hashes = bytearray()
    query = (
        select(PerceptualHash.media_item_id, PerceptualHash.hash)
        .join(MediaItem, MediaItem.id == PerceptualHash.media_item_id)
        .where(
            MediaItem.deleted_at.is_(None),
            MediaItem.duplicate_of_id.is_(None),
            PerceptualHash.quality >= WORTH_COMPARING,
        )
        .order_by(PerceptualHash.media_item_id)
    )
    for item_id, bits in session.execute(query, execution_options={"yield_per": BATCH}):
        ids.append(item_id)
        hashes += bits
    return ids, np.frombuffer(hashes, np.uint8).reshape(-1, alike.HASH_BYTES)


def _told(session: Session, ids: Sequence[UUID]) -> list[Alike]:
    """The living items among ``ids``, the best first."""
    pixels = func.coalesce(MediaItem.width, 0) * func.coalesce(MediaItem.height, 0)
    rows = session.execute(
        select(MediaItem, PerceptualHash)
        .join(PerceptualHash, PerceptualHash.media_item_id == MediaItem.id)
        .where(MediaItem.id.in_(ids), MediaItem.deleted_at.is_(None))
        .order_by(pixels.desc(), MediaItem.size_bytes.desc().nulls_last(), PerceptualHash.quality.desc())
        .order_by(MediaItem.created_at, MediaItem.id)
    ).all()
    best = int.from_bytes(rows[0][1].hash) if rows else 0
    return [
        Alike(
            id=item.id,
            key=item.key,
            width=item.width,
            height=item.height,
            size_bytes=item.size_bytes,
            quality=found.quality,
            created_at=item.created_at,
            distance=(int.from_bytes(found.hash) ^ best).bit_count(),
        )
        for item, found in rows
    ]
