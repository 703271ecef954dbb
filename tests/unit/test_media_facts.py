from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from pipeline.media.facts import merge
from pipeline.media.iptc import told_by_iptc
from pipeline.media.told import Told
from tests.images import corners, encoded, gps_tags, with_exif
from tests.metadata_files import bag, either, facts, iim, jpeg, packet, resource

CAPTION = iim(
    (5, b"Title"), (25, b"fog"), (25, "Fähre".encode()), (80, b"Bob"), (90, b"Wien"), (101, b"Austria"),
    (116, b"CC0"), (120, b"A caption"), (55, b"20240506"), (60, b"070809+0200"),
)  # fmt: skip


def exif_of(**tags: Any) -> bytes:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[getattr(Base, name)] = value
    return exif.tobytes()


def test_iptc_of_a_jpeg_is_read(tmp_path: Path) -> None:
    found = facts(tmp_path, jpeg(resources=resource(0x0404, CAPTION)))
    assert found.details == {
        "captured_from": "iptc:DateCreated",
        "captured_at_offset": "+02:00",
        "altitude_m": None,
        "title": "Title",
        "description": "A caption",
        "keywords": ["fog", "Fähre"],
        "creator": ["Bob"],
        "copyright": "CC0",
        "location": {"city": "Wien", "country": "Austria"},
    }
    assert found.captured_at == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert found.title == "Title"
    assert found.text == "Title\nA caption\nfog, Fähre\nBob\nCC0\nWien, Austria"


@pytest.mark.parametrize("sort", [7, 4], ids=["bytes", "words"])
def test_iptc_of_a_tiff_is_read_whatever_its_type(tmp_path: Path, sort: int) -> None:
    padded = CAPTION + bytes(-len(CAPTION) % 4)
    tags = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags.append((33723, sort, len(padded) // (4 if sort == 4 else 1), start))
    data = (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    )
    assert facts(tmp_path, data + bytes(4) + padded).details["keywords"] == ["fog", "Fähre"]


def test_metadata_that_imagemagick_writes_into_a_png_is_read(tmp_path: Path) -> None:
    info = PngInfo()
    for name, data in (
        ("exif", exif_of(Make="Canon")),
        ("iptc", resource(0x0404, CAPTION)),
        ("xmp", packet(xmp__Rating="2")),
    ):
        info.add_text(f"Raw profile type {name}", f"\n{name}\n{len(data):8}\n{data.hex()}\n")
    details = facts(tmp_path, encoded(corners((8, 8)), "PNG", pnginfo=info)).details
    assert (details["camera"], details["title"], details["rating"]) == ({"make": "Canon"}, "Title", 2)


@pytest.mark.parametrize(
    ("day", "clock", "text", "offset"),
    [
        (b"20240506", b"070809-0330", "2024-05-06T07:08:09", "-0330"),
        (b"20240506", b"070809+0000", "2024-05-06T07:08:09", None),  # Adobe's word for nobody knows
        (b"20240506", b"noon", "2024-05-06", None),
        (b"19890000", b"", "1989-00-00", None),
        (b"May", b"", "May", None),
    ],
)
def test_date_of_iptc_is_put_together(day: bytes, clock: bytes, text: str, offset: str | None) -> None:
    (date,) = told_by_iptc(iim((55, day), (60, clock))).dates
    assert (date.text, date.offset) == (text, offset)


@given(
    st.binary(max_size=300)
    | st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=9))).map(lambda x: iim(*x))
)
def test_no_iptc_whatever_fails(data: bytes) -> None:
    json.dumps(told_by_iptc(data).fields)
    json.dumps(told_by_iptc(CAPTION + data).fields)


def test_iptc_is_bounded() -> None:
    data = (
        iim(*((25, str(number).encode()) for number in range(5000)))
        + b"\x1c\x02\x19\x84\xff\xff\xff\xff"
        + b"x"
    )
    assert len(told_by_iptc(data).fields["keywords"]) == 200


def test_each_field_comes_from_the_source_that_the_rule_names(tmp_path: Path) -> None:
    exif = exif_of(ImageDescription="by EXIF", Artist="Ada; Bob", Copyright="EXIF's", Make="Canon")
    xmp = packet(
        either("dc:title", x_default="by XMP")
        + either("dc:description", x_default="no")
        + bag("dc:creator", "no"),
        tiff__Make="no", tiff__Model="EOS", xmp__Rating="3",
    )  # fmt: skip
    details = facts(tmp_path, jpeg(exif, xmp, resource(0x0404, CAPTION))).details
    assert details["description"] == "by EXIF"
    assert details["creator"] == ["Ada", "Bob"]
    assert details["copyright"] == "EXIF's"
    assert details["title"] == "by XMP"
    assert details["keywords"] == ["fog", "Fähre"]  # XMP has none
    assert details["camera"] == {"make": "Canon", "model": "EOS"}
    assert details["rating"] == 3


@pytest.mark.parametrize(
    ("digest", "title"),
    [
        (None, "by XMP"),
        (hashlib.md5(CAPTION, usedforsecurity=False).digest(), "by XMP"),
        (bytes(16), "Title"),  # changed by a program that knows no XMP
    ],
)
def test_iptc_wins_over_xmp_only_if_it_was_changed_since(
    tmp_path: Path, digest: bytes | None, title: str
) -> None:
    resources = resource(0x0404, CAPTION) + (resource(0x0425, digest) if digest else b"")
    xmp = packet(either("dc:title", x_default="by XMP"))
    assert facts(tmp_path, jpeg(xmp=xmp, resources=resources)).title == title


def test_position_comes_from_xmp_where_that_of_exif_is_empty(tmp_path: Path) -> None:
    data = with_exif({}, gps_tags(0, 0))
    at = data.index(b"\xff\xdb")
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet(
        exif__GPSLatitude="48,12N", exif__GPSLongitude="16,24E"
    )
    found = facts(
        tmp_path, data[:at] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[at:]
    )
    assert found.gps == (pytest.approx(48.2), pytest.approx(16.4))
    assert found.warnings == ("The GPS position is empty or impossible and was left out.",)


def test_nothing_told_is_nothing_known() -> None:
    found = merge(Told(), Told(), Told())
    assert found.details == {"captured_from": None, "captured_at_offset": None, "altitude_m": None}
    assert (found.captured_at, found.gps, found.title, found.text, found.warnings) == (
        None,
        None,
        None,
        "",
        (),
    )


def test_warnings_of_the_opened_picture_are_kept_once(tmp_path: Path) -> None:
    assert (
        facts(tmp_path, jpeg(b"MM\0*garbage", packet()[:-40]))
        .warnings[0]
        .startswith("The EXIF cannot be read")
    )


@pytest.mark.parametrize(
    ("told", "kept"), [(-430.5, -430.5), (408_000, 408_000), (1e300, None), (-20_000, None)]
)
def test_altitude_that_cannot_be_is_none(told: float, kept: float | None) -> None:
    assert merge(Told(altitude=told), Told(), Told()).details["altitude_m"] == kept
