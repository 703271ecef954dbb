from __future__ import annotations

import unicodedata
from dataclasses import asdict
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import keys
from pipeline.errors import InvalidRequestError, PermanentStageError
from pipeline.keys import ThumbnailKey, check_size, parse_key, parse_thumbnail_key, policy_for, thumbnail_key

ID = UUID("0190b1a2-1111-7222-8333-444455556666")
OTHER = UUID("0190b1a2-9999-7222-8333-444455556666")


@pytest.mark.parametrize(
    ("key", "entity_type", "entity_id"),
    [
        (f"raw/{ID}/Lala/clip.mov", "media_item", None),
        (f"scripts/{ID}/version_3.pdf", "media_item", None),
        (f"trailers/{ID}/trailer.mp4", "episode", ID),
        (f"wardrobe/{ID}/full_outfit.jpg", "outfit", ID),
        (f"ui-elements/{ID}.svg", "ui_element", ID),
        (f"backgrounds/{ID}.jpg", "background", ID),
        (f"audio/{ID}/bg_music.mp3", "media_item", None),
        (f"components/{ID}/{OTHER}.ext", "component", OTHER),
        (f"uploads/{ID}/photo.jpg", "media_item", None),
        (f"elsewhere/{ID}.jpg", "media_item", None),
        (f"wardrobe/{ID}", "media_item", None),
        ("wardrobe/red dress/full_outfit.jpg", "media_item", None),
        (f"backgrounds/{ID.hex}.jpg", "media_item", None),
    ],
)
def test_parse_key_names_the_entity_where_the_layout_does(
    key: str, entity_type: str, entity_id: UUID | None
) -> None:
    parsed = parse_key(key)
    assert (parsed.entity_type, parsed.entity_id) == (entity_type, entity_id)
    assert parsed.filename == key.rsplit("/", 1)[-1]


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=250))
@example(unicodedata.normalize("NFD", "uploads/Café.jpg"))
@example("uploads/a+b c.jpg")
@example("/")
def test_parse_key_takes_every_key_of_s3_and_changes_none(key: str) -> None:
    parsed = parse_key(key)
    assert key.startswith(parsed.prefix)
    assert key.endswith(parsed.filename)


@pytest.mark.parametrize("key", ["", "x" * 1025, "ä" * 513, "uploads/a\0b"])
def test_parse_key_refuses_what_cannot_be_a_key(key: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        parse_key(key)
    assert raised.value.field == "key"


def test_parse_key_takes_the_longest_key() -> None:
    assert parse_key("uploads/" + "ä" * 508).prefix == "uploads/"


@pytest.mark.parametrize(
    ("key", "limit"),
    [
        ("raw/x.mov", 5 * 1024**3),
        ("scripts/x.pdf", 50 * 1024**2),
        ("trailers/x.mp4", 500 * 1024**2),
        ("wardrobe/x.jpg", 10 * 1024**2),
        ("ui-elements/x.png", 5 * 1024**2),
        ("backgrounds/x.jpg", 10 * 1024**2),
        ("audio/x.mp3", 100 * 1024**2),
        ("components/x.bin", 1000),
        ("uploads/x.jpg", 1000),
        ("x.jpg", 1000),
    ],
)
def test_check_size_holds_the_limit_of_the_prefix_to_the_byte(key: str, limit: int) -> None:
    check_size(key, limit, 1000)
    with pytest.raises(PermanentStageError, match="takes at most") as raised:
        check_size(key, limit + 1, 1000)
    assert raised.value.code == "FILE_TOO_LARGE"


def test_setting_is_named_where_it_is_the_limit() -> None:
    def told(key: str) -> str:
        with pytest.raises(PermanentStageError) as raised:
            check_size(key, 10**12, 1000)
        return raised.value.message

    assert "DAILIES_UPLOAD_LIMIT" in told("uploads/x.jpg")
    assert "DAILIES" not in told("raw/x.mov")


def test_check_size_of_an_empty_file_says_so() -> None:
    with pytest.raises(PermanentStageError) as raised:
        check_size("uploads/x.jpg", 0, 1000)
    assert raised.value.code == "EMPTY_FILE"


def test_size_sentence_never_rounds_both_numbers_to_the_same() -> None:
    with pytest.raises(
        PermanentStageError, match=r"has 10\.485761 MB, and wardrobe/ takes at most 10\.485760 MB"
    ):
        check_size("wardrobe/x.jpg", 10 * 1024**2 + 1, 1000)


def test_policies_cover_the_layout_once() -> None:
    prefixes = [policy.prefix for policy in keys.POLICIES]
    assert len(set(prefixes)) == len(prefixes)
    assert all(
        policy_for(f"{prefix}x") is policy for prefix, policy in zip(prefixes, keys.POLICIES, strict=True)
    )


@settings(deadline=None)
@given(
    st.builds(
        ThumbnailKey,
        entity_type=st.from_regex(r"[a-z][a-z_]{0,30}", fullmatch=True),
        entity_id=st.uuids(),
        variant=st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True),
        fingerprint=st.from_regex(r"[0-9a-f]{1,64}", fullmatch=True),
        token=st.integers(0, 2**63 - 1),
        extension=st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True),
    )
)
@example(ThumbnailKey("media_item", ID, "primary", "00ff", 1, "jpg"))
@example(ThumbnailKey("s", ID, "primary", "00ff", 1, "jpg"))
def test_thumbnail_key_reads_back(parts: ThumbnailKey) -> None:
    assert parse_thumbnail_key(thumbnail_key(**asdict(parts))) == parts


def test_thumbnail_key_of_a_media_item_is_of_the_layout() -> None:
    key = thumbnail_key(
        entity_type="media_item",
        entity_id=ID,
        variant="primary",
        fingerprint="ab12",
        token=7,
        extension="jpg",
    )
    assert key == f"media_items/{ID}/primary.ab12.7.jpg"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "media_items/x/primary.ab.7.jpg",
        f"media_items/{ID}/primary.jpg",
        f"media_items/{ID}/primary.ab.07.jpg",
        f"media_items/{ID}/primary.ab.-7.jpg",
        f"media_items/{ID}/primary.AB.7.jpg",
        f"media_items/{ID}/a/primary.ab.7.jpg",
        f"media_items/{str(ID).upper()}/primary.ab.7.jpg",
        f"media_items/{ID}/primary.ab.7.jpg\n",
    ],
)
def test_parse_thumbnail_key_leaves_foreign_keys_alone(key: str) -> None:
    assert parse_thumbnail_key(key) is None


@pytest.mark.parametrize(
    "wrong", [{"variant": "a/b"}, {"token": -1}, {"fingerprint": "xyz"}, {"extension": ""}]
)
def test_thumbnail_key_refuses_parts_that_would_not_read_back(wrong: dict[str, object]) -> None:
    parts = {"variant": "primary", "fingerprint": "ab", "token": 1, "extension": "jpg", **wrong}
    with pytest.raises(InvalidRequestError):
        thumbnail_key(entity_type="outfit", entity_id=uuid4(), **parts)  # type: ignore[arg-type]  # wrong on purpose
