from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.PngImagePlugin import PngInfo
from pillow_heif import register_heif_opener

from pipeline.media.told import Told
from pipeline.media.when import Candidate, DateField
from pipeline.media.xmp import LARGEST, XmpError, read_packet, told_by_xmp
from tests.images import corners, encoded
from tests.metadata_files import bag, either, facts, jpeg, packet

register_heif_opener()


def told(properties: str = "", **attributes: str) -> Told:
    return told_by_xmp(read_packet(packet(properties, **attributes)))


def test_what_people_write_is_read_in_every_form_of_rdf() -> None:
    found = told(
        bag("dc:subject", "fog", "otter", "fog", " ")
        + either("dc:title", de_DE="Fischotter", x_default="Otter")
        + either("dc:description", en="A &lt;wet&gt; one\n&amp; two dry")
        + "<dc:creator><rdf:Seq><rdf:li>Zoë</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>"
        + "<xmp:Label> Red </xmp:Label>"
        + bag("Iptc4xmpExt:PersonInImage", "Ada"),
        xmp__Rating="4",
        photoshop__Headline="At the zoo",
        photoshop__Credit="NPS",
        dc__rights="CC0",
    )
    assert found.fields == {
        "rating": 4,
        "label": "Red",
        "title": "Otter",
        "headline": "At the zoo",
        "description": "A <wet> one\n& two dry",
        "keywords": ["fog", "otter"],
        "people": ["Ada"],
        "creator": ["Zoë", "Bob"],
        "credit": "NPS",
        "copyright": "CC0",
    }


def test_location_is_the_simple_one_or_where_the_picture_was_made() -> None:
    place = (
        "<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li rdf:parseType='Resource'>"
        "<Iptc4xmpExt:City>Wien</Iptc4xmpExt:City><Iptc4xmpExt:CountryCode>AT</Iptc4xmpExt:CountryCode>"
        "</rdf:li></rdf:Bag></Iptc4xmpExt:LocationCreated>"
    )
    assert told(place).fields == {"location": {"city": "Wien", "country_code": "AT"}}
    assert told(place, photoshop__City="Graz").fields == {"location": {"city": "Graz"}}


def test_camera_exposure_and_dates_are_read() -> None:
    found = told(
        "<exif:ISOSpeedRatings><rdf:Seq><rdf:li>400</rdf:li></rdf:Seq></exif:ISOSpeedRatings>",
        tiff__Make="Canon", aux__Lens="EF 50mm", exif__ExposureTime="1/200", exif__FNumber="28/10",
        exif__FocalLength="50/0", exif__DateTimeOriginal="2024-05-06T07:08:09.5+02:00",
        exif__GPSTimeStamp="2024-05-06T05:08:09Z",
    )  # fmt: skip
    assert found.camera == {"make": "Canon", "lens": "EF 50mm"}
    assert found.exposure == {"time_seconds": 0.005, "f_number": 2.8, "iso": 400}
    assert found.dates == (
        Candidate(DateField.XMP_ORIGINAL, "2024-05-06T07:08:09.5+02:00"),
        Candidate(DateField.GPS, "2024-05-06T05:08:09Z"),
    )


@pytest.mark.parametrize(
    ("latitude", "degrees"), [("48,12,30N", 48.208333), ("48,12.5S", -48.208333), ("48.5N", 48.5)]
)
def test_position_is_read_as_programs_write_it(latitude: str, degrees: float) -> None:
    found = told(exif__GPSLatitude=latitude, exif__GPSLongitude="16,24.0W", exif__GPSAltitude="1205/10")
    assert found.gps == (pytest.approx(degrees, abs=1e-6), pytest.approx(-16.4))
    assert found.altitude == 120.5
    assert found.warnings == ()


@pytest.mark.parametrize("latitude", ["", "91,0N", "48,61N", "48,12.5E", "nan", "0,0N", "48"])
def test_position_that_is_empty_or_impossible_is_left_out_and_said(latitude: str) -> None:
    found = told(exif__GPSLatitude=latitude, exif__GPSLongitude="0,0E")
    assert found.gps is None
    assert len(found.warnings) == 1


@pytest.mark.parametrize(("text", "rating"), [("-1", -1), ("0", 0), ("3.0", 3), ("6", None), ("good", None)])
def test_rating_is_0_to_5_or_rejected(text: str, rating: int | None) -> None:
    assert told(xmp__Rating=text).fields.get("rating") == rating


def test_lists_and_texts_are_bounded() -> None:
    found = told(
        bag("dc:subject", *(f"{number} {'x' * 300}" for number in range(500))), xmp__Label="y" * 5000
    )
    assert len(found.fields["keywords"]) == 200
    assert {len(word) for word in found.fields["keywords"]} == {200}
    assert len(found.fields["label"]) == 1000


def test_properties_of_other_namespaces_cost_no_room() -> None:
    history = "".join(f"<crs:Point{number}>{number}</crs:Point{number}>" for number in range(9000))
    found = told(history, xmp__Rating="5")
    assert found.fields == {"rating": 5}


ENTITIES = b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet(xmp__Label="&a;")
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>' + packet(xmp__Label="&b;")
FILE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + packet("<xmp:Label>&a;</xmp:Label>")


@pytest.mark.parametrize(
    "data",
    [
        ENTITIES,
        LAUGHS,
        FILE,
        packet("<xmp:Label>&unknown;</xmp:Label>"),
        packet()[:-40],
        b"<html/>",
        b"\xff\xfe\0",
        b'<?xml version="1.0" encoding="none-such"?><a/>',
        packet("<crs:a>" * 1000 + "</crs:a>" * 1000),
        packet("<crs:a/>" * 200_000),
        packet("x" * LARGEST),
    ],
    ids=[
        "entity",
        "laughs",
        "file",
        "undefined",
        "cut",
        "html",
        "noise",
        "encoding",
        "deep",
        "many",
        "large",
    ],
)
def test_packet_that_is_none_or_means_harm_is_refused(data: bytes) -> None:
    with pytest.raises(XmpError):
        read_packet(data)


def test_hostile_packet_takes_no_more_memory_than_it_has_itself() -> None:
    data = packet("<dc:subject>" + "<crs:a>xy</crs:a>" * 90_000 + "</dc:subject>")
    tracemalloc.start()
    read_packet(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(data)


@given(st.binary(max_size=100), st.integers(0, 3000))
def test_no_packet_whatever_raises_anything_else(noise: bytes, place: int) -> None:
    whole = packet(bag("dc:subject", "a", "b"), xmp__Rating="5", exif__GPSLatitude="1,2N")
    for data in (noise, whole[:place] + noise + whole[place + len(noise) :]):
        try:
            found = told_by_xmp(read_packet(data))
        except XmpError:
            continue
        json.dumps(found.fields, allow_nan=False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_xmp_is_read_from_every_format_that_carries_it(tmp_path: Path, kind: str) -> None:
    options = (
        {"tiffinfo": {700: packet(xmp__Rating="5")}} if kind == "TIFF" else {"xmp": packet(xmp__Rating="5")}
    )
    if kind == "PNG":
        options = {"pnginfo": _png_xmp(packet(xmp__Rating="5"))}
    found = facts(tmp_path, encoded(corners((32, 18)), kind, **options))
    assert found.details["rating"] == 5
    assert found.warnings == ()


def _png_xmp(data: bytes) -> PngInfo:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", data.decode())
    return info


def test_broken_xmp_is_a_warning(tmp_path: Path) -> None:
    found = facts(tmp_path, jpeg(xmp=packet()[:-40]))
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("The XMP cannot be read")


def test_xmp_in_utf_16_is_read(tmp_path: Path) -> None:
    xmp = packet(xmp__Label="Grün").decode().encode("utf-16")
    assert facts(tmp_path, jpeg(xmp=xmp)).details["label"] == "Grün"


def test_capture_time_comes_from_xmp_where_exif_has_none(tmp_path: Path) -> None:
    found = facts(tmp_path, jpeg(xmp=packet(photoshop__DateCreated="2024-05-06T07:08:09-03:30")))
    west = timezone(-timedelta(hours=3, minutes=30))
    assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=west)
    assert found.captured_at.astimezone(UTC).hour == 10
    assert found.details["captured_from"] == "photoshop:DateCreated"
