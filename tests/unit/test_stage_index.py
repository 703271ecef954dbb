from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context
from pipeline.stages.index import IndexValue, camera_of, words_of
from pipeline.workflows import StageName


def indexed(key: str, **known: Any) -> IndexValue:
    asset = Asset(media_item_id=uuid4(), key=key, **known)
    value = STAGES[StageName.INDEX].run(asset, Context(file=None, workdir=Path())).value
    assert isinstance(value, IndexValue)
    return value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("IMG_1234", ["IMG", "1234"]),
        ("SunsetOverLake2", ["Sunset", "Over", "Lake", "2"]),
        ("HTTPServer log-v2.final", ["HTTP", "Server", "log", "v", "2", "final"]),
        ("Café (1)+more", ["Café", "1", "more"]),
        (unicodedata.normalize("NFD", "Zoë"), ["Zoë"]),
        ("東京タワー_夜景", ["東京タワー", "夜景"]),
        ("हिन्दी-चित्र", ["हिन्दी", "चित्र"]),
        ("---", []),
    ],
)
def test_words_of_a_name(name: str, words: list[str]) -> None:
    assert words_of(name) == words


@settings(deadline=None)
@given(st.text(max_size=60))
def test_words_lose_no_letter_and_no_digit(name: str) -> None:
    composed = unicodedata.normalize("NFC", name)
    kept = [mark for mark in composed if unicodedata.category(mark)[0] in "LMN" and not mark.isspace()]
    assert "".join(words_of(name)) == "".join(kept)


def test_index_finds_a_file_by_its_name_in_words_and_raw() -> None:
    value = indexed("uploads/Day 3/IMG_1234.jpg")
    assert value.title == "IMG 1234"
    assert {"IMG_1234.jpg", "IMG_1234", "uploads", "Day", "3"} <= set(value.keywords.split())


def test_index_of_a_name_without_words_keeps_it_as_it_is() -> None:
    assert indexed("uploads/---.jpg").title == "---.jpg"


def test_index_takes_keywords_and_facets_from_what_was_found() -> None:
    value = indexed(
        "wardrobe/red dress/front.jpg",
        kind="image",
        mime_type="image/jpeg",
        width=300,
        height=400,
        captured_at=datetime(2024, 11, 6, tzinfo=UTC),
        gps=(1.0, 2.0),
        metadata={
            "camera": {"make": "NIKON CORPORATION", "model": "NIKON D90", "lens": "50mm"},
            "exif": {"description": "A red dress", "artist": "Zoe"},
        },
    )
    words = set(value.keywords.split())
    assert {
        "NIKON",
        "D90",
        "CORPORATION",
        "50mm",
        "image",
        "jpeg",
        "2024",
        "November",
        "portrait",
        "dress",
    } <= words
    assert value.facets == {
        "kind": "image",
        "mime_type": "image/jpeg",
        "camera": "NIKON D90",
        "year": 2024,
        "has_gps": True,
        "prefix": "wardrobe",
        "folder": "wardrobe/red dress",
    }


@pytest.mark.parametrize(
    ("camera", "name"),
    [
        ({}, None),
        ({"make": "Canon"}, "Canon"),
        ({"model": "EOS 5D"}, "EOS 5D"),
        ({"make": "Canon", "model": "EOS 5D"}, "Canon EOS 5D"),
        ({"make": "Canon", "model": "Canon EOS 5D"}, "Canon EOS 5D"),
    ],
)
def test_camera_is_named_once(camera: dict[str, str], name: str | None) -> None:
    assert camera_of(Asset(media_item_id=uuid4(), key="a", metadata={"camera": camera})) == name


@pytest.mark.parametrize(
    ("width", "height", "word"), [(4, 3, "landscape"), (3, 4, "portrait"), (3, 3, "square")]
)
def test_index_knows_the_shape(width: int, height: int, word: str) -> None:
    assert word in indexed("a", width=width, height=height).keywords.split()
