from __future__ import annotations

import json
import math
import struct
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from pipeline.media.exif import parse_gps, read_directories, told_by_exif
from pipeline.media.image import Still
from tests.images import corners, encoded, gps_tags, with_exif
from tests.metadata_files import facts, jpeg

latitudes = st.floats(-90, 90, allow_subnormal=False)
longitudes = st.floats(-180, 180, allow_subnormal=False)


@given(latitudes, longitudes)
@example(-90.0, 180.0)
@example(0.0, -0.0001)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_gps_survives_a_file_within_a_metre(tmp_path: Path, latitude: float, longitude: float) -> None:
    assume(abs(latitude) + abs(longitude) > 1e-4)
    found = facts(tmp_path, with_exif({}, gps_tags(latitude, longitude))).gps
    assert found == (pytest.approx(latitude, abs=1e-5), pytest.approx(longitude, abs=1e-5))


ZERO = IFDRational(0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {GPS.GPSLatitude: (ZERO, ZERO, ZERO)},
        {GPS.GPSLatitude: (91, 0, 0)},
        {GPS.GPSLongitude: (180, 0, 1)},
        {GPS.GPSLatitude: (-1, 0, 0)},
        {GPS.GPSLatitude: (1, 61, 0)},
        {GPS.GPSLatitude: (1, 0)},
        {GPS.GPSLatitude: (math.nan, 0, 0)},
        {GPS.GPSLatitude: (math.inf, 0, 0)},
        {GPS.GPSLatitude: None},
        {GPS.GPSLatitude: "48 12 0"},
        {GPS.GPSLatitudeRef: ""},
        {GPS.GPSLatitudeRef: "E"},
        {GPS.GPSLongitudeRef: None},
        {GPS.GPSLatitude: (0, 0, 0), GPS.GPSLongitude: (0, 0, 0)},
    ],
)
def test_gps_that_is_empty_or_impossible_is_left_out_and_said(change: dict[int, Any]) -> None:
    notes: list[str] = []
    assert parse_gps({**gps_tags(48.2, 16.4), **change}, notes) is None
    assert len(notes) == 1


def test_gps_takes_references_as_bytes_and_in_small_letters() -> None:
    tags = {**gps_tags(48.2, 16.4), GPS.GPSLatitudeRef: b"s\0", GPS.GPSLongitudeRef: "w"}
    assert parse_gps(tags, []) == (pytest.approx(-48.2), pytest.approx(-16.4))


def test_no_gps_is_no_warning() -> None:
    notes: list[str] = []
    assert parse_gps({GPS.GPSVersionID: b"\2\3\0\0"}, notes) is None
    assert notes == []


@pytest.mark.parametrize(("reference", "metres"), [(b"\0", 120.5), (b"\1", -120.5)])
def test_altitude_is_signed(tmp_path: Path, reference: bytes, metres: float) -> None:
    tags = gps_tags(48.2, 16.4) | {GPS.GPSAltitude: 120.5, GPS.GPSAltitudeRef: reference}
    assert facts(tmp_path, with_exif({}, tags)).details["altitude_m"] == metres


def test_capture_time_is_the_original_with_offset_and_fraction(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        with_exif(
            {
                Base.DateTimeOriginal: "2024:02:29 23:59:58",
                Base.OffsetTimeOriginal: "-03:30",
                Base.SubsecTimeOriginal: "25",
                Base.DateTimeDigitized: "2025:01:01 00:00:00",
                Base.DateTime: "2026:01:01 00:00:00",
            }
        ),
    )
    west = timezone(-timedelta(hours=3, minutes=30))
    assert found.captured_at == datetime(2024, 2, 29, 23, 59, 58, 250_000, west)
    assert found.details["captured_from"] == "DateTimeOriginal"
    assert found.details["captured_at_offset"] == "-03:30"


@pytest.mark.parametrize(
    ("unusable", "warnings"),
    [
        ({}, 0),
        ({Base.DateTimeOriginal: "0000:00:00 00:00:00"}, 0),
        ({Base.DateTimeOriginal: "    :  :     :  :  "}, 0),
        ({Base.DateTimeOriginal: "2024:13:45 10:00:00"}, 1),
        ({Base.DateTimeOriginal: "yesterday"}, 1),
        ({Base.DateTimeOriginal: "0001:01:01 00:00:00", Base.OffsetTimeOriginal: "+10:00"}, 1),
    ],
)
def test_capture_time_falls_to_the_next_date_that_can_be_read(
    tmp_path: Path, unusable: dict[int, Any], warnings: int
) -> None:
    found = facts(tmp_path, with_exif(unusable | {Base.DateTimeDigitized: "2024:05:06 07:08:09"}))
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert found.details["captured_from"] == "DateTimeDigitized"
    assert found.details["captured_at_offset"] is None
    assert len(found.warnings) == warnings


@pytest.mark.parametrize(
    ("text", "offset"), [("Z", "+00:00"), ("+0530", "+05:30"), ("+99:00", None), ("x", None)]
)
def test_offset_is_spelled_one_way_or_unknown(tmp_path: Path, text: str, offset: str | None) -> None:
    tags = {Base.DateTime: "2024:05:06 07:08:09", Base.OffsetTime: text}
    assert facts(tmp_path, with_exif(tags)).details["captured_at_offset"] == offset


def test_camera_exposure_and_texts_are_read(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        with_exif(
            {
                Base.Make: "Canon\0",
                Base.Model: "Canon EOS 5D",
                Base.LensModel: "EF 50mm",
                Base.ExposureTime: IFDRational(1, 200),
                Base.FNumber: IFDRational(28, 10),
                Base.ISOSpeedRatings: 400,
                Base.FocalLength: ZERO,
                Base.Artist: "Zoë Müller".encode(),  # what most programs write, though EXIF says ASCII
                Base.ImageDescription: "two\nlines\x07",
            }
        ),
    )
    assert found.details["camera"] == {"make": "Canon", "model": "Canon EOS 5D", "lens": "EF 50mm"}
    assert found.details["exposure"] == {"time_seconds": 0.005, "f_number": 2.8, "iso": 400}
    assert found.details["exif"] == {"artist": "Zoë Müller", "description": "two\nlines"}


@pytest.mark.parametrize("written", ["Zoë".encode(), "Zoë".encode("latin-1"), "Zoë\0\0Bob".encode()])
def test_text_is_read_in_whatever_it_was_written(tmp_path: Path, written: bytes) -> None:
    assert facts(tmp_path, with_exif({Base.Artist: written})).details["exif"] == {"artist": "Zoë"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_is_read_from_every_format_that_carries_it(tmp_path: Path, kind: str) -> None:
    tags = {Base.Make: "Canon", Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    found = facts(tmp_path, with_exif(tags, gps_tags(48.2, 16.4), kind))
    assert found.gps == (pytest.approx(48.2), pytest.approx(16.4))
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert found.details["camera"] == {"make": "Canon"}
    assert found.warnings == ()


def test_malformed_exif_is_a_warning(tmp_path: Path) -> None:
    assert facts(tmp_path, encoded(corners(), exif=b"Exif\0\0MM\0*garbage")).warnings


@given(st.binary(max_size=200), st.sampled_from([b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b""]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_exif_whatever_fails_a_picture(tmp_path: Path, noise: bytes, start: bytes) -> None:
    found = facts(tmp_path, encoded(corners((8, 8)), exif=b"Exif\0\0" + start + noise))
    text = json.dumps([found.details, found.gps, found.title, found.text], allow_nan=False)
    assert "\\u0000" not in text


def test_rating_and_the_texts_of_windows_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x4746] = 4
    exif[Base.XPTitle] = "Ünterwegs\0".encode("utf-16-le")
    exif[Base.XPKeywords] = "fog;otter; ".encode("utf-16-le")
    details = facts(tmp_path, jpeg(exif.tobytes())).details
    assert (details["rating"], details["title"], details["keywords"]) == (4, "Ünterwegs", ["fog", "otter"])


def test_what_a_camera_calls_every_picture_is_no_description(tmp_path: Path) -> None:
    found = facts(tmp_path, with_exif({Base.ImageDescription: "OLYMPUS DIGITAL CAMERA         "}))
    assert "description" not in found.details
    assert found.details["exif"] == {"description": "OLYMPUS DIGITAL CAMERA"}


def test_offset_follows_from_the_time_of_gps(tmp_path: Path) -> None:
    gps = gps_tags(48.2, 16.4) | {GPS.GPSDateStamp: "2024:05:06", GPS.GPSTimeStamp: (5.0, 7.0, 30.9)}
    found = facts(tmp_path, with_exif({Base.DateTimeOriginal: "2024:05:06 07:08:09"}, gps))
    assert found.captured_at == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert found.details["captured_at_offset"] == "+02:00"
    assert found.details["captured_at_offset_from"] == "GPSDateStamp"


def test_what_joins_a_live_photo_to_its_film_is_noted(tmp_path: Path) -> None:
    identifier = b"5B3A4A3E-0000-4000-8000-1C0FFEE01234\0"
    note = (
        b"Apple iOS\0\0\1MM\0\1" + struct.pack(">HHII", 0x11, 2, len(identifier), 32) + bytes(4) + identifier
    )
    found = facts(tmp_path, with_exif({Base.MakerNote: note}))
    assert found.details["content_identifier"] == identifier[:-1].decode()


def directory(entries: list[bytes], behind: bytes = b"") -> bytes:
    """A TIFF structure with one directory."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + behind


def entry(tag: int, sort: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, sort, count, value)


LARGE = 1 << 20


@pytest.mark.parametrize(
    "exif",
    [
        directory(
            [entry(IFD.Exif, 4, 1, 8), entry(IFD.GPSInfo, 4, 1, 8)]
        ),  # directories that are their own parts
        directory([entry(tag, 3, LARGE // 2, 8) for tag in range(0x100, 0x1000)], bytes(LARGE)),
        directory([entry(Base.Make, 2, 0xFFFFFFFF, 0)]),
        directory([entry(Base.Make, 2, 50, 0xFFFFFFF0)]),
        directory([entry(Base.Make, 99, 1, 0), entry(Base.DateTime, 12, 7, 8)]),
        directory([entry(IFD.Exif, 2, 4, 0x41414141)]),
        b"II*\0\x08\0\0\0\xff\xff",
    ],
    ids=[
        "loops",
        "many-large-values",
        "endless-text",
        "outside",
        "wrong-types",
        "text-for-a-pointer",
        "no-entries",
    ],
)
def test_hostile_exif_costs_little_and_fails_nothing(exif: bytes) -> None:
    notes: list[str] = []
    tracemalloc.start()
    still = Still(Image.new("L", (1, 1)), Path(__file__), 1, 1, ())  # type: ignore[arg-type]
    still.image.info["exif"] = exif
    told_by_exif(read_directories(still, still.path, notes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * LARGE


def test_exif_of_60_megabytes_is_left_out_and_said() -> None:
    still = Still(Image.new("L", (1, 1)), Path(__file__), 1, 1, ())  # type: ignore[arg-type]
    still.image.info["exif"] = directory([entry(Base.Make, 2, 3, 0x4142)]) + bytes(60_000_000)
    notes: list[str] = []
    assert read_directories(still, still.path, notes).main == {}
    assert notes == ["The EXIF has 60 MB, which no camera writes; it was left out."]


@pytest.mark.parametrize("big", [False, True])
def test_tiff_is_read_in_both_sizes_of_the_format(tmp_path: Path, big: bool) -> None:  # noqa: FBT001 - a parameter
    tags = {Base.Make: "Canon", Base.DateTime: "2024:05:06 07:08:09", 0x4746: 3}
    found = facts(tmp_path, encoded(corners((8, 8)), "TIFF", big_tiff=big, tiffinfo=tags))
    assert (found.details["camera"], found.details["rating"]) == ({"make": "Canon"}, 3)
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
