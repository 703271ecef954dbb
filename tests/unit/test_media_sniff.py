from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import InfrastructureError, PermanentStageError
from pipeline.media.image import open_image
from pipeline.media.sniff import MIME_TYPES, sniff
from tests.images import corners, encoded

LIMIT = 10_000_000


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("kind", "mime_type"), MIME_TYPES.items())
def test_sniff_knows_each_format_by_its_bytes(tmp_path: Path, kind: str, mime_type: str) -> None:
    found = sniff(written(tmp_path, encoded(corners(), kind)), pixel_limit=LIMIT)
    assert (found.mime_type, found.kind, found.warnings) == (mime_type, "image", ())


def test_sniff_of_a_multi_picture_jpeg_says_jpeg(tmp_path: Path) -> None:
    data = encoded(corners(), "MPO", save_all=True, append_images=[corners()])
    path = written(tmp_path, data)
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert sniff(path, pixel_limit=LIMIT).mime_type == "image/jpeg"


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", bytes(range(256)), b"RIFF\0\0\0\0WAVEfmt ", b"BM" + bytes(100), b"%PDF-1.7", b"<svg/>"],
)
def test_sniff_of_anything_else_lists_what_is_read(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PermanentStageError, match="JPEG, PNG, WebP, GIF and TIFF") as raised:
        sniff(written(tmp_path, data), pixel_limit=LIMIT, name="photo.jpg", content_type="image/jpeg")
    assert raised.value.code == "UNSUPPORTED_TYPE"


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}], ids=["DNG", "NEF"])
def test_sniff_refuses_a_raw_file_instead_of_taking_its_preview(
    tmp_path: Path, tags: dict[int, object]
) -> None:
    with pytest.raises(PermanentStageError, match="raw file") as raised:
        sniff(written(tmp_path, encoded(corners(), "TIFF", tiffinfo=tags)), pixel_limit=LIMIT)
    assert raised.value.code == "UNSUPPORTED_TYPE"


def test_sniff_refuses_canons_raw_file(tmp_path: Path) -> None:
    with pytest.raises(PermanentStageError) as raised:
        sniff(written(tmp_path, b"II*\0\x10\0\0\0CR\2\0" + bytes(100)), pixel_limit=LIMIT)
    assert raised.value.code == "UNSUPPORTED_TYPE"


@pytest.mark.parametrize(
    ("name", "content_type", "expected"),
    [
        ("photo.png", None, ["The name says image/png, the bytes are image/jpeg."]),
        ("photo.webp", None, ["The name says image/webp, the bytes are image/jpeg."]),
        ("clip.mp4", None, ["The name says video/mp4, the bytes are image/jpeg."]),
        ("photo.JPG", "image/jpg", []),
        ("photo", "application/octet-stream", []),
        ("photo.unheard-of", "image/jpeg; charset=binary", []),
        ("photo.jpeg", "image/png", ["The upload was declared as image/png, the bytes are image/jpeg."]),
    ],
)
def test_sniff_warns_where_name_or_uploader_disagree(
    tmp_path: Path, name: str, content_type: str | None, expected: list[str]
) -> None:
    path = written(tmp_path, encoded(corners()))
    found = sniff(path, pixel_limit=LIMIT, name=name, content_type=content_type)
    assert list(found.warnings) == expected


def test_sniff_of_a_picture_above_the_limit_never_decodes_it(tmp_path: Path) -> None:
    data = encoded(Image.new("L", (1, 1)), "PNG")
    huge = data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:]
    path = written(tmp_path, repaired_header(huge))
    with pytest.raises(PermanentStageError, match=r"3600\.0 megapixels") as raised:
        sniff(path, pixel_limit=LIMIT)
    assert raised.value.code == "IMAGE_TOO_LARGE"


def repaired_header(png: bytes) -> bytes:
    return png[:29] + zlib.crc32(png[12:29]).to_bytes(4, "big") + png[33:]


def test_sniff_of_a_copy_that_is_gone_blames_no_file(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as raised, open_image(tmp_path / "gone", pixel_limit=LIMIT):
        pass
    assert raised.value.code == "LOCAL_FILE_UNREADABLE"
