"""Each stage on real files, as a worker runs it."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, __version__
from PIL.ExifTags import Base

from pipeline.errors import PermanentStageError
from pipeline.media.reader import Limits
from pipeline.media.sniff import sniff
from pipeline.stages import STAGES
from pipeline.stages.audit import AuditValue
from pipeline.stages.base import Asset, Context, LocalFile, StageOutput
from pipeline.stages.dedupe import DedupeValue
from pipeline.stages.ingest import IngestValue
from pipeline.stages.metadata import MetadataValue
from pipeline.stages.thumbnails import ThumbnailsValue
from pipeline.workflows import StageName
from tests.images import corners, detailed, display_p3, encoded, gps_tags, oriented, with_exif

ID = UUID("0190b1a2-1111-7222-8333-444455556666")
S = StageName
MIME_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}
BYTES = {kind: encoded(detailed(), kind) for kind in MIME_TYPES} | {
    "progressive JPEG": encoded(detailed(), progressive=True),
    "lossless WebP": encoded(detailed(), "WEBP", lossless=True),
    "LZW TIFF": encoded(detailed(), "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": encoded(detailed(), "TIFF", compression="jpeg"),
}


def run(name: S, folder: Path, data: bytes, key: str = "uploads/a.jpg", **changes: Any) -> StageOutput:
    """Run one stage on ``data``; ``changes`` go to the asset or the context, whichever has the field."""
    path = folder / "source"
    path.write_bytes(data)
    local = LocalFile(path, len(data), hashlib.sha256(data).hexdigest())
    known = {name: value for name, value in changes.items() if name in Asset.model_fields}
    allowed = {name: value for name, value in changes.items() if name not in known}
    if name in {S.METADATA, S.THUMBNAILS}:
        found = sniff(path)
        known = {"mime_type": found.mime_type, "kind": found.kind, **known}
    context = Context(**{"file": local, "workdir": folder, "limits": Limits(pixels=1_000_000), **allowed})
    return STAGES[name].run(Asset(media_item_id=uuid4(), key=key, **known), context)


def code_of(name: S, folder: Path, data: bytes, **changes: Any) -> str:
    with pytest.raises(PermanentStageError) as raised:
        run(name, folder, data, **changes)
    return raised.value.code


def test_every_stage_is_registered_under_its_name_with_a_version() -> None:
    assert set(STAGES) == set(StageName)
    assert all(stage.name == name and stage.version[0].isdigit() for name, stage in STAGES.items())
    assert {name for name, stage in STAGES.items() if not stage.needs_file} == {S.INDEX, S.AUDIT}
    for name in (S.METADATA, S.THUMBNAILS):
        assert __version__ in STAGES[name].version
    assert {name for name, stage in STAGES.items() if stage.decodes} == {S.INGEST, S.METADATA, S.THUMBNAILS}


@pytest.mark.parametrize("kind", MIME_TYPES)
def test_every_format_goes_through(tmp_path: Path, kind: str) -> None:
    ingested = run(S.INGEST, tmp_path, BYTES[kind], key="uploads/file").value
    assert isinstance(ingested, IngestValue)
    assert (ingested.mime_type, ingested.kind) == (MIME_TYPES[kind], "image")
    found = run(S.METADATA, tmp_path, BYTES[kind]).value
    assert isinstance(found, MetadataValue)
    assert (found.width, found.height, found.details["format"]) == (300, 200, kind)
    made = run(S.THUMBNAILS, tmp_path, BYTES[kind]).value
    assert isinstance(made, ThumbnailsValue)
    sizes = [(one.variant, one.width, one.height) for one in made.variants]
    assert sizes == [("primary", 1280, 720), ("medium", 640, 360), ("small", 320, 180)]


def test_ingest_says_what_bytes_and_key_say(tmp_path: Path) -> None:
    data = encoded(corners())
    output = run(S.INGEST, tmp_path, data, key=f"wardrobe/{ID}/full.png")
    assert output.value == IngestValue(
        mime_type="image/jpeg",
        kind="image",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        entity_type="outfit",
        entity_id=ID,
    )
    assert output.warnings == ("The name says image/png, the bytes are image/jpeg.",)


@pytest.mark.parametrize(
    ("data", "changes", "code"),
    [
        (b"", {}, "EMPTY_FILE"),
        (bytes(1001), {"size_limit": 1000}, "FILE_TOO_LARGE"),
        (bytes(range(256)), {}, "UNSUPPORTED_TYPE"),
        (encoded(corners()), {"key": f"audio/{ID}/bg_music.mp3"}, "KIND_NOT_ALLOWED"),
    ],
)
def test_ingest_refuses(tmp_path: Path, data: bytes, changes: dict[str, Any], code: str) -> None:
    assert code_of(S.INGEST, tmp_path, data, **changes) == code


def test_picture_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    limits = Limits(pixels=320 * 180 - 1)
    for name in (S.METADATA, S.THUMBNAILS):
        assert code_of(name, tmp_path, encoded(corners()), limits=limits) == "IMAGE_TOO_LARGE"


def test_dedupe_answers_the_hash_of_the_bytes_that_ingest_saw(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert run(S.DEDUPE, tmp_path, b"abc").value == DedupeValue(sha256=sha256)
    assert run(S.DEDUPE, tmp_path, b"abc", sha256=sha256).value == DedupeValue(sha256=sha256)
    assert code_of(S.DEDUPE, tmp_path, b"abd", sha256=sha256) == "OBJECT_REPLACED"


@pytest.mark.parametrize("share", range(10, 100, 10))
@pytest.mark.parametrize("kind", BYTES)
def test_cut_picture_is_refused_as_cut(tmp_path: Path, kind: str, share: int) -> None:
    data = BYTES[kind]
    cut = data[: len(data) * share // 100]
    for name in (S.METADATA, S.THUMBNAILS):
        assert code_of(name, tmp_path, cut) == "TRUNCATED_IMAGE"


def test_what_is_no_picture_is_not_called_cut(tmp_path: Path) -> None:
    data = b"\xff\xd8\xff" + bytes(range(256)) + b"\xff\xd9"
    assert code_of(S.THUMBNAILS, tmp_path, data) == "CORRUPT_IMAGE"


@pytest.mark.parametrize(
    ("compression", "pixels"), [(1, detailed((100, 100)).convert("L").tobytes()), (8, None)]
)
def test_tiff_with_its_directory_first_is_seen_to_be_cut(
    tmp_path: Path, compression: int, pixels: bytes | None
) -> None:
    pixels = pixels or zlib.compress(hashlib.shake_128(b"noise").digest(10_000))
    tags = {
        256: 100,
        257: 100,
        258: 8,
        259: compression,
        262: 1,
        273: 200,
        277: 1,
        278: 100,
        279: len(pixels),
    }
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    whole = head.ljust(200, b"\0") + pixels
    assert run(S.METADATA, tmp_path, whole).warnings == ()
    assert code_of(S.METADATA, tmp_path, whole[:3000]) == "TRUNCATED_IMAGE"


@pytest.mark.parametrize(("kind", "header"), [("PNG", 40), ("WEBP", 20), ("JPEG", 3)])
def test_damaged_picture_of_full_length_is_refused_as_damaged(tmp_path: Path, kind: str, header: int) -> None:
    data = bytearray(BYTES[kind])
    data[header:-30] = bytes(len(data) - 30 - header)
    assert code_of(S.METADATA, tmp_path, bytes(data)) == "CORRUPT_IMAGE"


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_damage_never_raises_anything_but_a_stage_error(tmp_path: Path, data: st.DataObject) -> None:
    bad = bytearray(BYTES[data.draw(st.sampled_from(sorted(BYTES)))])
    for _ in range(data.draw(st.integers(1, 8))):
        bad[data.draw(st.integers(0, min(600, len(bad) - 1)))] = data.draw(st.integers(0, 255))
    name = data.draw(st.sampled_from((S.INGEST, S.METADATA, S.THUMBNAILS)))
    try:
        output = run(name, tmp_path, bytes(bad))
    except PermanentStageError as error:
        code = error.code
    else:
        json.dumps(output.value.model_dump(mode="json"), allow_nan=False)
        code = "fine"
    assert code in {"fine", "TRUNCATED_IMAGE", "CORRUPT_IMAGE", "IMAGE_TOO_LARGE", "UNSUPPORTED_TYPE"}


def test_metadata_says_what_the_camera_wrote(tmp_path: Path) -> None:
    tags = {Base.Make: "Canon", Base.Model: "EOS 5D", Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    found = run(S.METADATA, tmp_path, with_exif(tags | {Base.Artist: "Zoe"}, gps_tags(-33.9, 18.4))).value
    assert isinstance(found, MetadataValue)
    assert found.gps == (pytest.approx(-33.9), pytest.approx(18.4))
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert found.details == {
        "format": "JPEG",
        "mode": "RGB",
        "bits": 8,
        "frames": 1,
        "has_alpha": False,
        "icc_profile": None,
        "animated": False,
        "orientation": 1,
        "captured_from": "DateTimeOriginal",
        "captured_at_offset": None,
        "altitude_m": None,
        "camera": {"make": "Canon", "model": "EOS 5D"},
        "exif": {"artist": "Zoe"},
        "creator": ["Zoe"],
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_metadata_gives_the_size_and_the_placeholder_upright(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    found = run(S.METADATA, tmp_path, oriented(orientation, kind)).value
    assert isinstance(found, MetadataValue)
    assert (found.width, found.height, found.orientation) == (320, 180, orientation)
    assert b64decode(found.thumbhash)[4] & 0x80  # ThumbHash's own bit for landscape


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.new("I;16", (9, 9)), "PNG"), {"bits": 16, "frames": 1}),
        (encoded(Image.new("1", (9, 9)), "PNG"), {"bits": 1}),
        (encoded(Image.new("1", (9, 9)), "TIFF"), {"bits": 1}),
        (encoded(Image.new("F", (9, 9)), "TIFF"), {"bits": 32, "mode": "F"}),
        (encoded(Image.new("CMYK", (9, 9))), {"bits": 8, "mode": "CMYK"}),
        (encoded(Image.new("RGBA", (9, 9)), "WEBP"), {"has_alpha": True}),
        (encoded(corners(), "PNG", icc_profile=display_p3()), {"icc_profile": "Test profile"}),
        (encoded(corners(), "PNG", icc_profile=b"garbage"), {"icc_profile": None}),
        (encoded(corners(), "TIFF", save_all=True, append_images=[corners()] * 2), {"frames": 3}),
        (encoded(corners(), "GIF", save_all=True, append_images=[detailed((320, 180))]), {"frames": 2}),
    ],
)
def test_metadata_describes_the_file_not_what_pillow_makes_of_it(
    tmp_path: Path, data: bytes, expected: Mapping[str, Any]
) -> None:
    found = run(S.METADATA, tmp_path, data).value
    assert isinstance(found, MetadataValue)
    assert found.details.items() >= expected.items()


def test_placeholder_keeps_alpha(tmp_path: Path) -> None:
    found = run(S.METADATA, tmp_path, encoded(Image.new("RGBA", (64, 36), (255, 0, 0, 40)), "PNG")).value
    assert isinstance(found, MetadataValue)
    assert b64decode(found.thumbhash)[2] & 0x80  # ThumbHash's own bit for alpha


def test_thumbnails_hand_over_the_files_they_describe(tmp_path: Path) -> None:
    output = run(S.THUMBNAILS, tmp_path, encoded(corners()))
    assert isinstance(output.value, ThumbnailsValue)
    assert [(one.variant, one.bytes) for one in output.value.variants] == [
        (rendition.variant, rendition.path.stat().st_size) for rendition in output.renditions
    ]
    assert {(one.content_type, one.extension) for one in output.renditions} == {("image/jpeg", "jpg")}


def test_thumbnails_take_quality_from_the_job_before_the_setting(tmp_path: Path) -> None:
    data = encoded(detailed())
    by_setting = run(S.THUMBNAILS, tmp_path, data, jpeg_quality=30).renditions
    by_job = run(S.THUMBNAILS, tmp_path, data, jpeg_quality=95, config={"quality": 30}).renditions
    default = run(S.THUMBNAILS, tmp_path, data).renditions
    assert [one.fingerprint for one in by_setting] == [one.fingerprint for one in by_job]
    assert {one.fingerprint for one in by_job}.isdisjoint(one.fingerprint for one in default)


@pytest.mark.parametrize("quality", [0, 101, "85", 85.5, True, None])
def test_thumbnails_refuse_a_quality_that_is_none(tmp_path: Path, quality: object) -> None:
    assert (
        code_of(S.THUMBNAILS, tmp_path, encoded(corners()), config={"quality": quality}) == "INVALID_CONFIG"
    )


def test_audit_summarises_the_asset_as_json(tmp_path: Path) -> None:
    taken = datetime(2024, 5, 6, tzinfo=UTC)
    output = run(
        S.AUDIT, tmp_path, b"", key="uploads/a.jpg", size=7, kind="image", captured_at=taken, gps=(1, 2)
    )
    assert isinstance(output.value, AuditValue)
    summary = json.loads(json.dumps(output.value.summary))
    assert summary["key"] == "uploads/a.jpg"
    assert (summary["size"], summary["kind"], summary["gps"]) == (7, "image", [1, 2])
    assert summary["captured_at"] == "2024-05-06T00:00:00Z"
