from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL.ExifTags import GPS, Base
from PIL.TiffImagePlugin import IFDRational

from pipeline.media.exif import ExifFacts, parse_gps, read_exif
from pipeline.media.image import open_still
from tests.images import corners, encoded, gps_tags, with_exif

latitudes = st.floats(-90, 90, allow_subnormal=False)
longitudes = st.floats(-180, 180, allow_subnormal=False)


def facts(folder: Path, data: bytes) -> ExifFacts:
    path = folder / "file"
    path.write_bytes(data)
    with open_still(path, pixel_limit=10_000_000) as still:
        return read_exif(still)


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
    assert facts(tmp_path, with_exif({}, tags)).altitude == metres


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
    assert (found.captured_from, found.captured_at_offset) == ("DateTimeOriginal", "-03:30")


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
    assert (found.captured_from, found.captured_at_offset) == ("DateTimeDigitized", None)
    assert len(found.warnings) == warnings


@pytest.mark.parametrize(
    ("text", "offset"), [("Z", "+00:00"), ("+0530", "+05:30"), ("+99:00", None), ("x", None)]
)
def test_offset_is_spelled_one_way_or_unknown(tmp_path: Path, text: str, offset: str | None) -> None:
    tags = {Base.DateTime: "2024:05:06 07:08:09", Base.OffsetTime: text}
    assert facts(tmp_path, with_exif(tags)).captured_at_offset == offset


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
    assert found.camera == {"make": "Canon", "model": "Canon EOS 5D", "lens": "EF 50mm"}
    assert found.exposure == {"time_seconds": 0.005, "f_number": 2.8, "iso": 400}
    assert found.texts == {"artist": "Zoë Müller", "description": "two\nlines"}


@pytest.mark.parametrize("written", ["Zoë".encode(), "Zoë".encode("latin-1"), "Zoë\0\0Bob".encode()])
def test_text_is_read_in_whatever_it_was_written(tmp_path: Path, written: bytes) -> None:
    assert facts(tmp_path, with_exif({Base.Artist: written})).texts == {"artist": "Zoë"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_is_read_from_every_format_that_carries_it(tmp_path: Path, kind: str) -> None:
    tags = {Base.Make: "Canon", Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    found = facts(tmp_path, with_exif(tags, gps_tags(48.2, 16.4), kind))
    assert found.gps == (pytest.approx(48.2), pytest.approx(16.4))
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert found.camera == {"make": "Canon"}
    assert found.warnings == ()


def test_malformed_exif_is_a_warning(tmp_path: Path) -> None:
    assert facts(tmp_path, encoded(corners(), exif=b"Exif\0\0MM\0*garbage")).warnings


@given(st.binary(max_size=200), st.sampled_from([b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b""]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_exif_whatever_fails_a_picture(tmp_path: Path, noise: bytes, start: bytes) -> None:
    found = facts(tmp_path, encoded(corners((8, 8)), exif=b"Exif\0\0" + start + noise))
    text = json.dumps([found.camera, found.exposure, found.texts, found.altitude, found.gps], allow_nan=False)
    assert "\\u0000" not in text
