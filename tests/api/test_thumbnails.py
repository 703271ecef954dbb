"""Thumbnails, listed and opened."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import factories
import pytest
import urllib3
from answers import BASE_URL, data_of, error_of
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.orm import Session

from db.models import MediaItem
from db.session import Sessions
from pipeline.keys import parse_thumbnail_key
from pipeline.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SOME_ID = "0199f3a2-7a54-7c50-9d3e-6f6f0f1f2a3b"
JPEG = b"\xff\xd8\xff\xe0 the bytes of a picture"


def test_picture_opens_by_the_url_in_the_answer(
    api: TestClient, sessions: Sessions, aws: Settings, s3: S3Client
) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
        pictures = factories.add_thumbnails(session, item)
    key = pictures[1].file_reference
    s3.put_object(Bucket=aws.thumbnail_bucket, Key=key, Body=JPEG, ContentType="image/jpeg")
    told = data_of(api.get(f"/api/v1/media-items/{item.id}"))["thumbnails"][1]
    assert (told["variant"], told["key"], told["width"], told["height"]) == ("medium", key, 640, 360)
    response = api.get(told["url"])
    assert response.status_code == 307
    assert response.headers["Cache-Control"] == "private, max-age=450"
    with urllib3.PoolManager() as http:
        opened = http.request("GET", response.headers["Location"])
    assert (opened.status, opened.data, opened.headers["Content-Type"]) == (200, JPEG, "image/jpeg")


def test_links_lead_to_the_url_that_is_set(api: TestClient, sessions: Sessions, aws: Settings) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
        factories.add_thumbnails(session, item)
    (told, *_) = data_of(api.get(f"/api/v1/thumbnails/media_item/{item.id}"))
    base = (aws.api_url or BASE_URL).rstrip("/")
    assert told["url"] == f"{base}/api/v1/thumbnails/media_item/{item.id}/primary"


def test_duplicate_answers_with_its_originals(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        original = factories.add_item(session)
        factories.add_thumbnails(session, original)
        duplicate = factories.add_duplicate(session, original)
    pictures = data_of(api.get(f"/api/v1/thumbnails/media_item/{duplicate.id}"))
    assert {picture["entity_id"] for picture in pictures} == {str(original.id)}
    opened = api.get(f"/api/v1/thumbnails/media_item/{duplicate.id}/small")
    assert f"/media_items/{original.id}/small." in opened.headers["Location"]


def test_entity_has_the_pictures_of_its_item(api: TestClient, sessions: Sessions) -> None:
    outfit, other = {"entity_type": "outfit", "entity_id": uuid4()}, uuid4()
    with sessions.begin() as session:
        item = factories.add_item(session, **outfit)
        factories.add_thumbnails(session, item)
        factories.add_duplicate(session, item, entity_type="outfit", entity_id=other)
    pictures = data_of(api.get(f"/api/v1/thumbnails/outfit/{outfit['entity_id']}"))
    assert len(pictures) == 3
    assert data_of(api.get(f"/api/v1/thumbnails/media_item/{item.id}")) == pictures
    assert data_of(api.get(f"/api/v1/thumbnails/outfit/{other}")) == pictures
    assert api.get(f"/api/v1/thumbnails/outfit/{other}/primary").status_code == 307


def _outfit_of_two(session: Session) -> tuple[UUID, MediaItem, MediaItem]:
    """Two files of one outfit, older first; their pictures are told apart by the tokens 1 and 2."""
    outfit = uuid4()
    front, back = (factories.add_item(session, entity_type="outfit", entity_id=outfit) for _ in range(2))
    for token, item in enumerate((front, back), start=1):
        factories.add_thumbnails(session, item, token=token)
    return outfit, front, back


def _tokens(answer: Response) -> set[int]:
    """The attempts that made the pictures in the answer."""
    keys = [parse_thumbnail_key(picture["key"]) for picture in data_of(answer)]
    return {key.token for key in keys if key is not None}


def test_entity_of_several_files_has_the_pictures_of_the_newest(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        outfit, front, back = _outfit_of_two(session)
    assert _tokens(api.get(f"/api/v1/thumbnails/outfit/{outfit}")) == {2}
    opened = api.get(f"/api/v1/thumbnails/outfit/{outfit}/small")
    assert ".2.jpg" in opened.headers["Location"]
    assert _tokens(api.get(f"/api/v1/thumbnails/media_item/{front.id}")) == {1}
    assert _tokens(api.get(f"/api/v1/thumbnails/media_item/{back.id}")) == {2}


def test_pictures_of_a_removed_file_give_way_to_those_of_the_one_before(
    api: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        outfit, front, back = _outfit_of_two(session)
        back.deleted_at, back.holds_hash = factories.now(), False
    assert _tokens(api.get(f"/api/v1/thumbnails/outfit/{outfit}")) == {1}
    with sessions.begin() as session:
        last = session.get_one(MediaItem, front.id)
        last.deleted_at, last.holds_hash = factories.now(), False
    for path in (f"outfit/{outfit}", f"outfit/{outfit}/small", f"media_item/{front.id}"):
        error_of(api.get(f"/api/v1/thumbnails/{path}"), 404, "NOT_FOUND")


def test_newest_file_without_pictures_yet_leaves_those_of_the_one_before(
    api: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        outfit, *_ = _outfit_of_two(session)
        factories.add_item(session, entity_type="outfit", entity_id=outfit)
    assert _tokens(api.get(f"/api/v1/thumbnails/outfit/{outfit}")) == {2}


def test_newest_file_that_is_a_duplicate_has_its_originals_pictures(
    api: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        outfit, *_ = _outfit_of_two(session)
        original = factories.add_item(session)
        factories.add_thumbnails(session, original, token=3)
        factories.add_duplicate(session, original, entity_type="outfit", entity_id=outfit)
    assert _tokens(api.get(f"/api/v1/thumbnails/outfit/{outfit}")) == {3}


def test_pictures_of_a_deleted_original_are_nobodys(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        outfit, front, back = _outfit_of_two(session)
        back.deleted_at, back.holds_hash = factories.now(), False
        copy = factories.add_duplicate(session, back, entity_type="outfit", entity_id=outfit)
    assert data_of(api.get(f"/api/v1/thumbnails/media_item/{copy.id}")) == []
    assert _tokens(api.get(f"/api/v1/thumbnails/outfit/{outfit}")) == {1}
    assert data_of(api.get(f"/api/v1/media-items/{front.id}"))["thumbnails"] != []


def test_item_without_pictures_has_an_empty_list(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
    assert data_of(api.get(f"/api/v1/thumbnails/media_item/{item.id}")) == []
    missing = api.get(f"/api/v1/thumbnails/media_item/{item.id}/primary")
    assert "none yet" in error_of(missing, 404, "NOT_FOUND")


def test_unknown_variant_names_those_there_are(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
        factories.add_thumbnails(session, item)
    message = error_of(api.get(f"/api/v1/thumbnails/media_item/{item.id}/poster"), 404, "NOT_FOUND")
    assert "'poster'" in message
    assert "primary, medium, small" in message


@pytest.mark.parametrize("path", ["media_item", "outfit", "spaceship"])
@pytest.mark.parametrize("variant", ["", "/primary"])
def test_unknown_entity_is_not_found(api: TestClient, sessions: Sessions, path: str, variant: str) -> None:
    missing = uuid4()
    response = api.get(f"/api/v1/thumbnails/{path}/{missing}{variant}")
    assert str(missing) in error_of(response, 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"Media%20Item/{SOME_ID}", "entity_type"),
        (f"a%00b/{SOME_ID}", "entity_type"),
        ("media_item/7", "entity_id"),
        (f"media_item/{SOME_ID}/..%5C", "variant"),
    ],
)
def test_path_that_makes_no_sense_names_the_part(api: TestClient, path: str, field: str) -> None:
    error_of(api.get(f"/api/v1/thumbnails/{path}"), 422, "VALIDATION_ERROR", field)


def test_url_of_an_items_picture_opens_that_picture(api: TestClient, sessions: Sessions) -> None:
    outfit = {"entity_type": "outfit", "entity_id": uuid4()}
    with sessions.begin() as session:
        front, back = (factories.add_item(session, **outfit) for _ in range(2))
        for token, item in enumerate((front, back), start=1):
            factories.add_thumbnails(session, item, token=token)
        copy = factories.add_duplicate(session, front)
        factories.add_document(session, front, "otterfront")
    for item in (front, copy, back):
        for told in data_of(api.get(f"/api/v1/media-items/{item.id}"))["thumbnails"]:
            assert told["key"] in api.get(told["url"]).headers["Location"]
    (hit,) = data_of(api.get("/api/v1/search?q=otterfront"))["hits"]
    assert ".1.jpg" in api.get(hit["thumbnail_url"]).headers["Location"]
