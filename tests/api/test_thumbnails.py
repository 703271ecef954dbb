"""Thumbnails, listed and opened."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import factories
import pytest
import urllib3
from answers import data_of, error_of
from fastapi.testclient import TestClient

from db.session import Sessions
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
    base = (aws.api_url or "http://testserver").rstrip("/")
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
