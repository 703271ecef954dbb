"""A file and the XMP that tells of it, joined in whichever order they come."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import effects, events
from db.effects import Done
from db.events import Budgets
from db.models import MediaItem, ProcessingJob
from db.queue.claim import asset_of
from db.session import Sessions
from pipeline.errors import TransientStageError
from pipeline.events import Change, ObjectEvent
from pipeline.stages.dedupe import DedupeValue
from pipeline.stages.metadata import MetadataValue
from pipeline.workflows import StageName, WorkflowType
from tests.factories import add_item
from tests.support import claimed, complete, due, in_threads

CAMERA = {"camera": {"make": "Canon"}, "rating": 1}
SAID = {"rating": 5, "keywords": ["dune"]}


def photo(session: Session, key: str = "uploads/dune.dng") -> MediaItem:
    return add_item(session, key=key, kind="image", mime_type="image/x-adobe-dng", details={})


def sidecar(session: Session, key: str = "uploads/dune.xmp") -> MediaItem:
    return add_item(session, key=key, kind="sidecar", mime_type="application/rdf+xml", details={})


def settle(session: Session, item: MediaItem, details: dict[str, Any]) -> None:
    """What the metadata stage's end does."""
    value = MetadataValue(width=30, height=20, details=details)
    effects.apply(session, StageName.METADATA, Done(asset_of(item), value))
    session.refresh(item)


def reindexed(session: Session) -> list[UUID]:
    """The items whose metadata is to be read again."""
    query = select(ProcessingJob.media_item_id).where(ProcessingJob.workflow_type == WorkflowType.REINDEX)
    return list(session.scalars(query))


def test_file_that_comes_after_its_sidecar_takes_in_what_it_says(session: Session) -> None:
    told = sidecar(session)
    settle(session, told, SAID)
    item = photo(session)
    settle(session, item, CAMERA)
    assert item.details["rating"] == 5
    assert item.details["keywords"] == ["dune"]
    assert item.details["camera"] == {"make": "Canon"}
    assert item.details["from_sidecar"] == ["keywords", "rating"]
    assert reindexed(session) == []


def test_sidecar_that_comes_later_has_its_files_read_again(session: Session) -> None:
    raw, developed = photo(session), photo(session, "uploads/dune.jpg")
    elsewhere = photo(session, "uploads/other/dune.jpg")
    for item in (raw, developed, elsewhere):
        settle(session, item, CAMERA)
    settle(session, sidecar(session), SAID)
    assert set(reindexed(session)) == {raw.id, developed.id}
    settle(session, raw, CAMERA)
    assert raw.details["rating"] == 5


def test_sidecar_of_one_file_goes_before_that_of_all_with_its_name(session: Session) -> None:
    settle(session, sidecar(session), SAID)
    settle(session, sidecar(session, "uploads/dune.jpg.xmp"), {"rating": 3})
    raw, developed = photo(session), photo(session, "uploads/dune.jpg")
    for item in (raw, developed):
        settle(session, item, CAMERA)
    assert (raw.details["rating"], developed.details["rating"]) == (5, 3)


def test_file_that_was_not_read_yet_is_not_read_twice(session: Session) -> None:
    photo(session)
    settle(session, sidecar(session), SAID)
    assert reindexed(session) == []


def test_what_a_removed_sidecar_said_is_taken_back(session: Session) -> None:
    told, item = sidecar(session), photo(session)
    settle(session, told, SAID)
    settle(session, item, CAMERA)
    event = ObjectEvent(
        change=Change.REMOVED, bucket=told.bucket, key=told.key, version_id=told.version_id, sequencer="0F"
    )
    assert events.apply(session, event, Budgets()).what == "removed"
    assert reindexed(session) == [item.id]
    settle(session, item, CAMERA)
    assert item.details == CAMERA


@pytest.mark.parametrize("attempt", range(5))
def test_neither_misses_the_other_when_both_settle_at_once(sessions: Sessions, attempt: int) -> None:
    name = f"uploads/{attempt}-{uuid4()}"
    with sessions.begin() as session:
        ids = [photo(session, f"{name}.dng").id, sidecar(session, f"{name}.xmp").id]

    def work(number: int) -> None:
        with sessions.begin() as session:
            settle(session, session.get_one(MediaItem, ids[number]), (CAMERA, SAID)[number])

    in_threads(2, work)
    with sessions() as session:
        joined = session.get_one(MediaItem, ids[0]).details["rating"] == 5
        assert joined != (reindexed(session) == [ids[0]])


def test_sidecar_with_the_bytes_of_another_tells_its_own_files(session: Session) -> None:
    first, second = photo(session, "uploads/a.jpg"), photo(session, "uploads/b.jpg")
    for item in (first, second):
        settle(session, item, CAMERA)
    told = sidecar(session, "uploads/a.xmp")
    settle(session, told, SAID)
    same = sidecar(session, "uploads/b.xmp")
    same.holds_hash, same.sha256 = False, None
    session.flush()
    value = DedupeValue(sha256=told.sha256 or "")
    effects.apply(session, StageName.DEDUPE, Done(asset_of(same), value))
    session.expire_all()  # the database knows more than this session
    assert set(reindexed(session)) == {first.id, second.id}
    settle(session, second, CAMERA)
    assert second.details["rating"] == 5


def test_sidecar_waits_while_its_file_is_past_its_metadata(session: Session) -> None:
    item = photo(session)
    settle(session, item, CAMERA)
    told = sidecar(session)
    settle(session, told, SAID)
    settle(session, told, {"rating": 4})  # its file is still to be read again: that will do
    job = session.scalars(select(ProcessingJob)).one()
    complete(session, claimed(session, due(session, job.id)))
    with pytest.raises(TransientStageError) as raised:
        settle(session, told, {"rating": 3})
    assert raised.value.code == "SIDECAR_WAITS"
