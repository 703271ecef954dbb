"""Media items, listed and shown."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import factories
import pytest
from answers import data_of, error_of
from fastapi.testclient import TestClient

from db.session import Sessions
from pipeline.states import TaskStatus

DONE, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def test_item_shows_all_that_is_known(api: TestClient, sessions: Sessions) -> None:
    taken = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
    with sessions.begin() as session:
        item = factories.add_item(
            session,
            key="uploads/Zürich/lake 1.jpg",
            captured_at=taken,
            latitude=47.37,
            longitude=-8.54,
            details={"camera": {"make": "Canon"}},
            warnings=["the name says PNG"],
        )
        factories.add_thumbnails(session, item)
        factories.add_job(session, item, [DONE] * 6)
        newest = factories.add_job(session, item)
    told = data_of(api.get(f"/api/v1/media-items/{item.id}"))
    assert (told["key"], told["width"], told["height"]) == ("uploads/Zürich/lake 1.jpg", 4000, 3000)
    assert told["captured_at"] == "2024-05-17T09:30:00Z"
    assert told["gps"] == {"latitude": 47.37, "longitude": -8.54}
    assert told["metadata"] == {"camera": {"make": "Canon"}}
    assert told["warnings"] == ["the name says PNG"]
    assert told["latest_job"]["id"] == str(newest.id)
    assert [picture["variant"] for picture in told["thumbnails"]] == ["primary", "medium", "small"]
    assert (told["duplicate_of"], told["duplicates"]) == (None, [])


def test_item_of_which_nothing_is_known_yet_is_null_in_each_part(api: TestClient, sessions: Sessions) -> None:
    nothing = dict.fromkeys(("size_bytes", "kind", "mime_type", "sha256", "width", "height"))
    with sessions.begin() as session:
        item = factories.add_item(session, holds_hash=False, **nothing)
    told = data_of(api.get(f"/api/v1/media-items/{item.id}"))
    for name in (*nothing, "gps", "captured_at", "latest_job", "duplicate_of"):
        assert told[name] is None
    assert told["thumbnails"] == []


def test_duplicate_and_original_point_at_each_other(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        original = factories.add_item(session)
        factories.add_thumbnails(session, original)
        copies = [factories.add_duplicate(session, original) for _ in range(2)]
        factories.add_duplicate(session, original, deleted_at=factories.now())
    told = data_of(api.get(f"/api/v1/media-items/{original.id}"))
    assert [each["id"] for each in told["duplicates"]] == [str(copy.id) for copy in copies]
    duplicate = data_of(api.get(f"/api/v1/media-items/{copies[0].id}"))
    assert duplicate["duplicate_of"]["key"] == original.key
    assert duplicate["duplicate_of_id"] == str(original.id)
    assert duplicate["thumbnails"] == told["thumbnails"] != []


def test_each_file_of_an_entity_keeps_its_own_pictures(api: TestClient, sessions: Sessions) -> None:
    outfit = {"entity_type": "outfit", "entity_id": uuid4()}
    with sessions.begin() as session:
        front, back = (factories.add_item(session, **outfit) for _ in range(2))
        copy = factories.add_duplicate(session, front)
        made = [
            [picture.file_reference for picture in factories.add_thumbnails(session, item, token=token)]
            for token, item in enumerate((front, back), start=1)
        ]
    told = [data_of(api.get(f"/api/v1/media-items/{item.id}")) for item in (front, back, copy)]
    keys = [[picture["key"] for picture in item["thumbnails"]] for item in told]
    assert keys == [made[0], made[1], made[0]]


@pytest.mark.parametrize("deleted", [True, False])
def test_unknown_or_deleted_item_is_not_found(api: TestClient, sessions: Sessions, *, deleted: bool) -> None:
    item_id = uuid4()
    if deleted:
        with sessions.begin() as session:
            gone = {"deleted_at": factories.now(), "holds_hash": False}
            item_id = factories.add_item(session, **gone).id
    assert str(item_id) in error_of(api.get(f"/api/v1/media-items/{item_id}"), 404, "NOT_FOUND")


def test_items_are_listed_newest_first_page_by_page(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        made = [str(factories.add_item(session).id) for _ in range(3)]
        factories.add_item(session, deleted_at=factories.now(), holds_hash=False)
    first = api.get("/api/v1/media-items?limit=2")
    cursor = first.json()["metadata"]["next_cursor"]
    second = api.get("/api/v1/media-items", params={"limit": 2, "cursor": cursor})
    assert [item["id"] for item in data_of(first) + data_of(second)] == made[::-1]
    assert second.json()["metadata"]["next_cursor"] is None


def test_listed_items_have_their_pictures_and_newest_job(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        original = factories.add_item(session)
        factories.add_thumbnails(session, original)
        job = factories.add_job(session, original, [DONE] * 6)
        factories.add_duplicate(session, original)
    duplicate, listed = data_of(api.get("/api/v1/media-items"))
    assert (listed["latest_job"]["id"], listed["latest_job"]["key"]) == (str(job.id), original.key)
    assert len(listed["thumbnails"]) == 3
    assert duplicate["thumbnails"] == listed["thumbnails"]
    assert duplicate["latest_job"] is None


def test_items_are_filtered_by_the_status_of_their_newest_job(api: TestClient, sessions: Sessions) -> None:
    broken = [FAILED, *[CANCELLED] * 5]
    with sessions.begin() as session:
        failed = factories.add_item(session)
        factories.add_job(session, failed, [DONE] * 6)
        factories.add_job(session, failed, broken)
        mended = factories.add_item(session)
        factories.add_job(session, mended, broken)
        factories.add_job(session, mended, [DONE] * 6)
        factories.add_item(session)

    def listed(status: str) -> list[str]:
        return [item["id"] for item in data_of(api.get("/api/v1/media-items", params={"status": status}))]

    assert listed("failed") == [str(failed.id)]
    assert listed("completed") == [str(mended.id)]
    assert listed("queued") == []
    error_of(api.get("/api/v1/media-items?status=lost"), 422, "VALIDATION_ERROR", "status")


def test_items_are_filtered_by_kind_and_by_the_beginning_of_their_key(
    api: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        for key in ("uploads/100%_a.jpg", "uploads/100x_a.jpg", "raw/100%.jpg"):
            factories.add_item(session, key=key)
        factories.add_item(session, key="uploads/clip.mov", kind="video")

    def listed(**query: str) -> list[str]:
        return [item["key"] for item in data_of(api.get("/api/v1/media-items", params=query))]

    assert listed(key_prefix="uploads/100%_") == ["uploads/100%_a.jpg"]
    assert listed(keyPrefix="uploads/", kind="video") == ["uploads/clip.mov"]
    assert listed(kind="image", key_prefix="uploads/1") == ["uploads/100x_a.jpg", "uploads/100%_a.jpg"]
    assert listed(key_prefix="") == listed()


@pytest.mark.parametrize("field", ["kind", "key_prefix"])
def test_nul_in_a_filter_names_the_field(api: TestClient, field: str) -> None:
    response = api.get("/api/v1/media-items", params={field: "a\x00b"})
    assert "NUL" in error_of(response, 422, "VALIDATION_ERROR", field)
