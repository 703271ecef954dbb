"""What pictures say, and that headers alone refuse what would cost too much."""

from __future__ import annotations

import struct
import zlib
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from pipeline.errors import InfrastructureError, PermanentStageError
from pipeline.media import image, jxl, stills
from pipeline.media.colour import on_white
from pipeline.media.pictures import PRIMARY
from pipeline.media.reader import Description, Limits
from pipeline.media.resize import cover
from tests.images import (
    BLUE,
    GREEN,
    RED,
    STORED,
    WIDE,
    YELLOW,
    corners,
    detailed,
    display_p3,
    encoded,
    oriented,
    with_exif,
)

LIMITS = Limits(pixels=10_000_000)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF", "JXL"]
TURNED = ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"]


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


def described(folder: Path, data: bytes, limits: Limits = LIMITS) -> Description:
    return stills.describe(written(folder, data), limits)


def seen(folder: Path, data: bytes) -> list[object]:
    """The four corners of what becomes of the picture."""
    with stills.picture(written(folder, data), LIMITS, (1280, 720)) as still:
        made = on_white(cover(still, PRIMARY)[0])
    places = ((160, 90), (1120, 90), (160, 630), (1120, 630))
    return [pytest.approx(made.getpixel(place), abs=12) for place in places]


def code_of(folder: Path, data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(PermanentStageError) as raised:
        described(folder, data, limits)
    return raised.value.code


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_described_and_seen(tmp_path: Path, kind: str) -> None:
    data = encoded(corners(), kind)
    found = described(tmp_path, data)
    assert (found.width, found.height, found.orientation) == (*WIDE, 1)
    details = {name: found.details[name] for name in ("format", "bits", "frames", "animated", "has_alpha")}
    assert details == {"format": kind, "bits": 8, "frames": 1, "animated": False, "has_alpha": False}
    assert found.warnings == ()
    assert seen(tmp_path, data) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_told_and_applied_once(tmp_path: Path, kind: str, orientation: int) -> None:
    data = oriented_heif(orientation) if kind == "HEIF" else oriented(orientation, kind)
    found = described(tmp_path, data)
    assert (found.width, found.height, found.orientation) == (*WIDE, orientation)
    assert seen(tmp_path, data) == [RED, GREEN, BLUE, YELLOW]


def oriented_heif(orientation: int) -> bytes:
    """As ``oriented``: the plugin's encoder writes the container's own rotation for EXIF in bytes only."""
    stored = corners().transpose(STORED[orientation]) if orientation in STORED else corners()
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return encoded(stored, "HEIF", exif=exif.tobytes())


def test_a_jpeg_packed_as_jpeg_xl_is_turned_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(oriented(6))
    with Image.open(tmp_path / "a.jpg") as picture:
        data = encoded(picture, "JXL", lossless_jpeg=True)
    found = described(tmp_path, data)
    assert (found.width, found.height, found.orientation) == (*WIDE, 6)
    assert seen(tmp_path, data) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "JXL"])
def test_exif_is_read_from_every_format_that_has_it(tmp_path: Path, kind: str) -> None:
    tags = {Base.Make: "Canon", Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    found = described(tmp_path, with_exif(tags, kind=kind))
    assert found.details["camera"] == {"make": "Canon"}
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert found.warnings == ()


def test_exif_behind_the_pixels_of_a_png_is_read_without_decoding_them(tmp_path: Path) -> None:
    data = oriented(6, "PNG")
    start = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[start : start + 4], "big")
    chunk, rest = data[start : start + length], data[:start] + data[start + length :]
    end, pixels = rest.index(b"IEND") - 4, rest.index(b"IDAT") + 4
    broken = rest[:pixels] + bytes(end - 4 - pixels) + rest[end - 4 : end] + chunk + rest[end:]
    assert described(tmp_path, broken).orientation == 6
    sound = rest[:end] + chunk + rest[end:]
    assert described(tmp_path, sound).orientation == 6
    assert seen(tmp_path, sound) == [RED, GREEN, BLUE, YELLOW]


def test_xmp_behind_the_pixels_of_a_png_is_read(tmp_path: Path) -> None:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    )
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet)
    data = encoded(corners(), "PNG", pnginfo=info)
    start = data.index(b"iTXt") - 4
    length = 12 + int.from_bytes(data[start : start + 4], "big")
    rest = data[:start] + data[start + length :]
    end = rest.index(b"IEND") - 4
    assert described(tmp_path, rest[:end] + data[start : start + length] + rest[end:]).details["rating"] == 4


def heif(bits: int, folder: Path) -> bytes:
    values = np.zeros((16, 16, 3), "uint16" if bits > 8 else "uint8")
    mode = "RGB;16" if bits > 8 else "RGB"
    pillow_heif.from_bytes(mode, (16, 16), values.tobytes()).save(folder / "heif", format="HEIF")
    return (folder / "heif").read_bytes()


def avif(folder: Path, pixels: str, **colours: int) -> bytes:
    with av.open(folder / "avif", "w", format="avif") as container:
        stream: Any = container.add_stream("libsvtav1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 128, 72, pixels
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(np.asarray(corners((128, 72)))).reformat(format=pixels)
        frame.pts, frame.time_base = 0, Fraction(1)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return (folder / "avif").read_bytes()


def test_bits_are_the_file_s_whatever_the_decoder_makes_of_them(tmp_path: Path) -> None:
    sixteen = Image.new("I;16", (8, 8))
    assert described(tmp_path, encoded(sixteen, "PNG")).details["bits"] == 16
    assert described(tmp_path, encoded(sixteen, "TIFF")).details["bits"] == 16
    assert described(tmp_path, encoded(sixteen, "JXL")).details["bits"] == 16
    assert described(tmp_path, encoded(Image.new("1", (8, 8)), "BMP")).details["bits"] == 1
    assert described(tmp_path, heif(10, tmp_path)).details["bits"] == 10
    plain = described(tmp_path, avif(tmp_path, "yuv420p10le"))
    assert (plain.details["bits"], "hdr" in plain.details) == (10, False)


def test_hdr_is_told_and_warned_of(tmp_path: Path) -> None:
    found = described(tmp_path, avif(tmp_path, "yuv420p10le", color_primaries=9, color_trc=16, colorspace=9))
    assert found.details["hdr"] == "PQ"
    assert len(found.warnings) == 1


def test_profile_alpha_and_pages_are_told(tmp_path: Path) -> None:
    details = described(tmp_path, encoded(corners().convert("RGBA"), "PNG", icc_profile=display_p3())).details
    assert (details["icc_profile"], details["has_alpha"], details["mode"]) == ("Test profile", True, "RGBA")
    more = {"save_all": True, "append_images": [detailed(WIDE), corners()]}
    for kind, animated in {"GIF": True, "WEBP": True, "PNG": True, "AVIF": True, "TIFF": False}.items():
        details = described(tmp_path, encoded(corners(), kind, **more)).details
        assert (details["frames"], details["animated"]) == (3, animated), kind
    assert described(tmp_path, encoded(corners(), "MPO", **more)).details["format"] == "MPO"


def test_a_profile_of_many_megabytes_is_passed_over(tmp_path: Path) -> None:
    data = encoded(corners(), "TIFF", icc_profile=display_p3().ljust(5_000_000, b"\0"))
    assert described(tmp_path, data).details["icc_profile"] is None
    with stills.picture(tmp_path / "file", LIMITS, (1280, 720)) as still:
        assert cover(still, PRIMARY)[1]


def test_a_million_frames_are_not_walked(tmp_path: Path) -> None:
    frame = b"\x2c\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    found = described(
        tmp_path, b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * (stills.MOST_FRAMES + 5) + b";"
    )
    assert found.details["frames"] == stills.MOST_FRAMES
    assert "more than 10,000 frames" in found.warnings[0]


def pages(count: int) -> bytes:
    """A TIFF of ``count`` pages, the last of which leads back to the first."""
    fields = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    size = 2 + 12 * len(fields) + 4
    body = b"II*\0\x08\0\0\0"
    for number in range(count):
        after = 8 + size * ((number + 1) % count)
        body += struct.pack("<H", len(fields))
        body += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
        body += struct.pack("<I", after)
    return body


@pytest.mark.parametrize(("count", "told"), [(1, 1), (3, 3), (11_000, stills.MOST_FRAMES)])
def test_looping_pages_end(tmp_path: Path, count: int, told: int) -> None:
    assert described(tmp_path, pages(count)).details["frames"] == told


def bomb(width: int, height: int, kind: str) -> bytes:
    """A few bytes that claim to be of this size."""
    if kind == "PNG":
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
        chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        return b"\x89PNG\r\n\x1a\n" + chunk + encoded(corners(), "PNG")[33:]
    if kind == "WEBP":
        sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + sizes + bytes(100)
    if kind == "JXL":
        # From the lowest bit: no multiple of 8; a height in 30 bits; no ratio; a width in 30 bits
        bits = 0 | 3 << 1 | (height - 1) << 3 | 0 << 33 | 3 << 36 | (width - 1) << 38 | 1 << 68
        return b"\xff\x0a" + bits.to_bytes(40, "little")
    data = bytearray(encoded(Image.new("RGB", (8, 8)), kind, progressive=True))
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def test_what_follows_a_picture_counts_for_none_of_its_scans(tmp_path: Path) -> None:
    film = b"\xff\xda\0\x08" * 1000
    assert described(tmp_path, encoded(corners(), "JPEG", progressive=True) + film).width


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JXL", "JPEG"])
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, kind: str) -> None:
    with pytest.raises(PermanentStageError, match=r"16000 x 9000 pixels \(144\.0 megapixels\)") as raised:
        described(tmp_path, bomb(16_000, 9_000, kind))
    assert raised.value.code == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize(("kind", "said"), [("PNG", "sort of PNG"), ("JPEG", "sort of JPEG")])
def test_pixels_that_take_more_memory_than_others_are_refused_sooner(
    tmp_path: Path, kind: str, said: str
) -> None:
    limits = Limits(pixels=10**9)
    with pytest.raises(PermanentStageError, match=said) as raised:
        described(tmp_path, bomb(20_000, 15_000, kind), limits)
    assert raised.value.code == "IMAGE_TOO_LARGE"
    baseline = bomb(20_000, 15_000, "JPEG").replace(b"\xff\xc2", b"\xff\xc0")
    assert described(tmp_path, baseline, limits).width == 20_000


@pytest.mark.parametrize("segment", [b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527), b"\xff\xfe\0\x02"])
def test_a_jpeg_that_is_all_header_is_refused_before_it_is_read(tmp_path: Path, segment: bytes) -> None:
    data = encoded(corners())
    assert (
        code_of(tmp_path, data[:2] + segment * (6_000 if len(segment) < 9 else 40) + data[2:])
        == "CORRUPT_IMAGE"
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_anywhere_it_is_an_error_of_ours_or_a_picture(tmp_path: Path, kind: str) -> None:
    whole = encoded(detailed(), kind)
    for share in range(0, 100, 5):
        path = written(tmp_path, whole[: len(whole) * share // 100])
        try:
            stills.describe(path, LIMITS)
            with stills.picture(path, LIMITS, (1280, 720)) as still:
                still.load()
        except PermanentStageError as error:
            assert error.code in {"TRUNCATED_IMAGE", "CORRUPT_IMAGE"}  # noqa: PT017 - BMP may go well
        else:
            assert share > 90


def test_an_error_names_no_path(tmp_path: Path) -> None:
    with pytest.raises(PermanentStageError) as raised:
        described(tmp_path, b"\x89PNG\r\n\x1a\n and no more")
    assert str(tmp_path) not in raised.value.message


def test_a_copy_that_is_gone_blames_no_file(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as raised, image.open_image(tmp_path / "gone", pixel_limit=9):
        pass
    assert raised.value.code == "LOCAL_FILE_UNREADABLE"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (257, 300), (4000, 3000), (2100, 5), (512, 288)])
def test_jpeg_xl_header_is_the_encoder_s(tmp_path: Path, size: tuple[int, int]) -> None:
    for container in (True, False):
        data = encoded(Image.new("L", size), "JXL", effort=1, use_container=container)
        found = jxl.read_header(written(tmp_path, data))
        assert (found.width, found.height, found.orientation, found.animated) == (*size, 1, False)


def test_metadata_packed_in_a_jpeg_xl_is_said_to_be_unread(tmp_path: Path) -> None:
    data = with_exif({Base.Make: "Canon"}, kind="JPEG")
    exif = data[data.index(b"Exif\0\0") + 6 :][:200]
    packed = encoded(corners(), "JXL", exif=exif, use_container=True, compress_metadata=True)
    assert any("Brotli" in warning for warning in described(tmp_path, packed).warnings)
