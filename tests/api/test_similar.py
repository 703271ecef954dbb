"""What looks like a media item, by the API and by the command."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from answers import data_of, error_of
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cli.main import app
from db.session import Sessions
from tests import factories
from tests.hashes import add_hashed, at, some_hash

BITS = some_hash(1)


def test_similar_items_are_told_with_their_distance_and_pictures(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = add_hashed(session, BITS)
        far = add_hashed(session, at(BITS, 25))
        close = add_hashed(session, at(BITS, 2), key="uploads/small.jpg")
        factories.add_thumbnails(session, close)
        add_hashed(session, at(BITS, 40), key="uploads/cropped.jpg")
        add_hashed(session, some_hash(2))
    path = f"/api/v1/media-items/{asked.id}/similar"
    told = data_of(api.get(path))
    assert [(each["item"]["id"], each["distance"]) for each in told] == [
        (str(close.id), 2),
        (str(far.id), 25),
    ]
    assert told[0]["item"]["key"] == "uploads/small.jpg"
    assert len(told[0]["item"]["thumbnails"]) == 3
    assert len(data_of(api.get(path, params={"threshold": 24}))) == 1
    assert len(data_of(api.get(path, params={"threshold": 64}))) == 3
    assert len(data_of(api.get(path, params={"limit": 1}))) == 1


@pytest.mark.parametrize(
    ("field", "value"), [("threshold", 65), ("threshold", -1), ("limit", 0), ("limit", 201)]
)
def test_number_out_of_range_names_the_field(api: TestClient, field: str, value: int) -> None:
    response = api.get(f"/api/v1/media-items/{uuid4()}/similar", params={field: value})
    error_of(response, 422, "VALIDATION_ERROR", field)


def test_item_that_cannot_be_compared_says_why(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        sound = factories.add_item(session, kind="audio")
        plain = add_hashed(session, BITS, quality=3)
    error_of(api.get(f"/api/v1/media-items/{uuid4()}/similar"), 404, "NOT_FOUND")
    error_of(api.get(f"/api/v1/media-items/{sound.id}/similar"), 409, "NO_PERCEPTUAL_HASH")
    error_of(api.get(f"/api/v1/media-items/{plain.id}/similar"), 409, "PICTURE_TOO_PLAIN")


def test_command_shows_groups_the_best_first(sessions: Sessions) -> None:
    with sessions.begin() as session:
        add_hashed(session, at(BITS, 5), key="uploads/small.jpg", width=400, height=300)
        best = add_hashed(session, BITS, key="uploads/large.jpg")
        add_hashed(session, some_hash(2), key="uploads/other.jpg")
    told = CliRunner().invoke(app, ["duplicates", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["groups"], found["items"]) == (1, 2)
    assert [item["key"] for item in found["shown"][0]] == ["uploads/large.jpg", "uploads/small.jpg"]
    assert (found["shown"][0][0]["id"], found["shown"][0][1]["distance"]) == (str(best.id), 5)
    shown = CliRunner().invoke(app, ["duplicates"], env={"COLUMNS": "200"}).stdout
    assert shown.index("large.jpg") < shown.index("small.jpg")
    assert "4000 x 3000" in shown
    assert "2 items in 1 groups" in shown
    assert "0 items in 0 groups" in CliRunner().invoke(app, ["duplicates", "--threshold", "4"]).stdout
