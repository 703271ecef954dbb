"""Perceptual hashes in the database."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from db import similar
from db.models import MediaItem, PerceptualHash
from db.session import Sessions
from pipeline.errors import ConflictError, NotFoundError
from pipeline.media.alike import coarse_first
from tests.factories import add_duplicate, add_item, now
from tests.hashes import add_hashed, at, dice, some_hash

BITS = some_hash(1)


def near(session: Session, item: MediaItem, **options: int) -> list[tuple[str, int]]:
    return [(found.key, distance) for found, distance in similar.similar(session, item.id, **options)]


def test_hash_is_stored_with_its_lowest_frequencies_first(session: Session) -> None:
    item = add_hashed(session, (1 << 255 | 1 << 1 | 1 << 0).to_bytes(32), quality=73)
    found = session.get_one(PerceptualHash, item.id)
    assert (found.hash, found.quality) == ((0b11 << 254 | 1).to_bytes(32), 73)
    assert session.scalar(text("SELECT hash::text FROM perceptual_hashes")) == f"11{'0' * 253}1"


def test_hash_is_replaced_and_taken_away(session: Session) -> None:
    item = add_hashed(session, BITS)
    similar.put(session, item.id, some_hash(2).hex(), 60)
    changed = session.get_one(PerceptualHash, item.id, populate_existing=True)
    assert (changed.hash, changed.quality) == (coarse_first(some_hash(2)), 60)
    similar.put(session, item.id, None, None)
    assert session.scalar(select(func.count()).select_from(PerceptualHash)) == 0


def test_similar_items_are_told_nearest_first_within_the_threshold(session: Session) -> None:
    asked = add_hashed(session, BITS, key="asked")
    for distance in (31, 7, 0, 32, 19):
        add_hashed(session, at(BITS, distance), key=f"at {distance}")
    add_hashed(session, some_hash(2))
    assert near(session, asked) == [("at 0", 0), ("at 7", 7), ("at 19", 19), ("at 31", 31)]
    assert near(session, asked, threshold=18) == [("at 0", 0), ("at 7", 7)]
    assert near(session, asked, limit=1) == [("at 0", 0)]


def test_every_distance_up_to_27_is_found_wherever_the_bits_are(session: Session) -> None:
    asked = add_hashed(session, BITS)
    drawn = dice(4)
    copies = {add_hashed(session, at(BITS, drawn.randint(14, 27), seed)).id for seed in range(200)}
    assert {item.id for item, _ in similar.similar(session, asked.id, limit=300)} == copies


def test_deleted_plain_and_duplicate_items_are_not_similar(session: Session) -> None:
    asked = add_hashed(session, BITS)
    add_hashed(session, BITS, deleted_at=now(), holds_hash=False)
    add_hashed(session, BITS, quality=49)
    similar.put(session, add_duplicate(session, asked).id, BITS.hex(), 100)
    add_hashed(session, BITS, quality=50, key="comparable")
    assert near(session, asked) == [("comparable", 0)]


def test_duplicate_is_compared_by_the_hash_of_its_original(session: Session) -> None:
    original = add_hashed(session, BITS)
    add_hashed(session, at(BITS, 4), key="smaller")
    assert near(session, add_duplicate(session, original)) == [("smaller", 4)]


def test_item_that_cannot_be_compared_says_why(session: Session) -> None:
    with pytest.raises(NotFoundError):
        similar.similar(session, uuid4())
    with pytest.raises(ConflictError, match="no perceptual hash") as without:
        similar.similar(session, add_item(session, kind="audio").id)
    with pytest.raises(ConflictError, match="quality 12") as plain:
        similar.similar(session, add_hashed(session, BITS, quality=12).id)
    assert (without.value.code, plain.value.code) == ("NO_PERCEPTUAL_HASH", "PICTURE_TOO_PLAIN")


MANY = """
WITH made AS (
    INSERT INTO media_items (id, bucket, key)
    SELECT gen_random_uuid(), 'storage', 'uploads/' || n FROM generate_series(1, 20000) n RETURNING id
)
INSERT INTO perceptual_hashes (media_item_id, hash, quality)
SELECT id, ('x' || md5(id::text) || md5('more of ' || id))::bit(256), 100 FROM made
"""


def test_search_among_many_reads_the_indexes_on_the_words(session: Session) -> None:
    session.execute(text(MANY))
    session.execute(text("ANALYZE media_items, perceptual_hashes"))
    session.execute(text("SET LOCAL enable_seqscan = off"))  # so few are read as fast from end to end
    asked = add_hashed(session, BITS)
    connection, ran = session.connection(), []
    event.listen(connection, "before_cursor_execute", lambda *call: ran.append(call[2:4]))
    similar.similar(session, asked.id)
    (statement, given) = next(call for call in ran if "bit_count" in call[0])
    plan = " ".join(connection.exec_driver_sql(f"EXPLAIN {statement}", given).scalars()).split()
    assert all(f"ix_perceptual_hashes_word_{number}" in plan for number in range(14))


def test_groups_tell_the_largest_first_and_the_best_of_each_first(sessions: Sessions) -> None:
    early = now() - timedelta(days=1)
    small = {"width": 400, "height": 300}
    with sessions.begin() as session:
        add_hashed(session, at(BITS, 9), key="small", **small)
        add_hashed(session, at(BITS, 3), key="large")
        add_hashed(session, BITS, key="large, more bytes", size_bytes=2000)
        add_hashed(session, BITS, key="large, better hash", quality=99)
        add_hashed(session, BITS, key="small, early", created_at=early, **small)
        for number in range(2):
            add_hashed(session, some_hash(2), key=f"pair {number}")
        add_hashed(session, some_hash(3), key="alone")
        add_hashed(session, BITS, key="gone", deleted_at=now(), holds_hash=False)
        add_hashed(session, BITS, key="plain", quality=10)
    found = similar.groups(sessions)
    assert (found.groups, found.items) == (2, 7)
    first, second = found.shown
    assert [item.key for item in first] == [
        "large, more bytes",
        "large",
        "large, better hash",
        "small, early",
        "small",
    ]
    assert [item.distance for item in first] == [0, 3, 0, 0, 9]
    assert [item.key for item in second] == ["pair 0", "pair 1"]
    assert len(similar.groups(sessions, limit=1).shown) == 1
    assert len(similar.groups(sessions, threshold=0).shown[0]) == 3


def test_no_hash_is_no_group(sessions: Sessions) -> None:
    assert similar.groups(sessions) == similar.Groups(0, 0, [])
