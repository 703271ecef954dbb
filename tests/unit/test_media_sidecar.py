from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NoPictureError, PermanentStageError
from pipeline.media.facts import Facts
from pipeline.media.reader import Limits
from pipeline.media.sidecar import describe, overlay, parse_sidecar, picture, sidecar_keys, sidecar_targets
from pipeline.media.xmp import LARGEST
from tests.metadata_files import bag, either, packet

UTC_MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
EAST_MOMENT = UTC_MOMENT.replace(tzinfo=timezone(timedelta(hours=2)))
LATER = UTC_MOMENT + timedelta(hours=1)


def sidecar(folder: Path, data: bytes) -> Facts:
    path = folder / "a.xmp"
    path.write_bytes(data)
    return parse_sidecar(path)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("uploads/a/x.xmp", "uploads/a/x.jpg"),
        ("uploads/a/x.xmp", "uploads/a/x.CR2"),
        ("uploads/a/x.XMP", "uploads/a/x.DNG"),
        ("uploads/a/x.jpg.xmp", "uploads/a/x.jpg"),
        ("uploads/a/x.Jpg.xmp", "uploads/a/x.Jpg"),
        ("uploads/a/x.mp4.xmp", "uploads/a/x.mp4"),
        ("x.y.xmp", "x.y.jpg"),
        ("été à la mer/ß.xmp", "été à la mer/ß.heic"),
    ],
)
def test_sidecar_finds_its_file_and_the_file_its_sidecar(key: str, target: str) -> None:
    assert target in sidecar_targets(key)
    assert key in sidecar_keys(target)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("a/x.xmp", "b/x.jpg"),
        ("a/x.xmp", "a/y.jpg"),
        ("a/x.xmp", "a/x.mp4"),  # a film's sidecar names its whole file
        ("a/x.jpg.xmp", "a/x.cr2"),
        ("a/x.jpg.xmp", "a/x.jpg.png"),
        ("a/x.xmp", "a/x.xmp"),
        ("a/x.xmp.xmp", "a/x.xmp"),
        ("a/.xmp", "a/.jpg"),
        ("a.xmp/x", "a.jpg/x"),
        ("a/x.txt", "a/x.jpg"),
    ],
)
def test_keys_that_do_not_belong_together_are_not_joined(key: str, target: str) -> None:
    assert target not in sidecar_targets(key)
    assert key not in sidecar_keys(target)


names = st.text("ab.", max_size=4)
endings = st.sampled_from(
    ["", ".jpg", ".JPG", ".Jpg", ".cr2", ".mp4", ".xmp", ".XMP", ".jpg.xmp", ".cr2.XMP"]
)


@given(st.builds("{}/{}{}".format, names, names, endings), st.builds("{}/{}{}".format, names, names, endings))
def test_both_directions_agree(one: str, other: str) -> None:
    for key in (one, other):
        assert all(
            key in sidecar_keys(target) for target in sidecar_targets(key) if "." in target.rpartition("/")[2]
        )
        assert all(key in sidecar_targets(sidecar) for sidecar in sidecar_keys(key))
    assert (one in sidecar_targets(other)) == (other in sidecar_keys(one))


def test_own_sidecar_comes_before_the_shared_one() -> None:
    assert sidecar_keys("a/x.jpg") == ("a/x.jpg.xmp", "a/x.jpg.XMP", "a/x.xmp", "a/x.XMP")


def test_sidecar_is_read_and_has_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(
        packet(bag("dc:subject", "fog") + either("dc:title", x_default="Otter"), xmp__Rating="-1")
    )
    said = describe(path, Limits())
    assert said.title == "Otter"
    assert said.text == "Otter\nfog"
    assert (said.details["format"], said.details["rating"], said.details["keywords"]) == ("XMP", -1, ["fog"])
    with pytest.raises(NoPictureError):
        picture(path, Limits(), (1, 1))


def test_rdf_without_adobes_wrapping_is_read(tmp_path: Path) -> None:
    data = (
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
        b'<rdf:Description xmp:Rating="2"/></rdf:RDF>'
    )
    assert sidecar(tmp_path, data).details["rating"] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "CORRUPT_SIDECAR"),
        (packet()[:-40], "CORRUPT_SIDECAR"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet(), "CORRUPT_SIDECAR"),
        (b"<svg/>", "CORRUPT_SIDECAR"),
        (packet() + bytes(LARGEST), "FILE_TOO_LARGE"),
    ],
)
def test_sidecar_that_cannot_be_read_says_why(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(PermanentStageError) as caught:
        sidecar(tmp_path, data)
    assert caught.value.code == code


def known(
    at: datetime | None = None, source: str | None = None, offset: str | None = None, **more: Any
) -> Facts:
    gps = more.pop("gps", None)
    details = {"captured_from": source, "captured_at_offset": offset, "altitude_m": None, **more}
    return Facts(at, gps, details=details)


def test_overlay_takes_what_people_wrote_and_keeps_what_the_camera_did() -> None:
    file = known(
        camera={"make": "Canon"}, rating=1, keywords=["old"], title="Old", format="JPEG", altitude_m=3.0
    )
    beside = known(
        camera={"make": "no"}, rating=0, keywords=["new"], label="Red", format="XMP", gps=(48.2, 16.4)
    )
    found = overlay(file, beside)
    assert found.details == {
        "captured_from": None,
        "captured_at_offset": None,
        "altitude_m": None,  # the file's was of another place
        "camera": {"make": "Canon"},
        "rating": 0,
        "keywords": ["new"],
        "title": "Old",
        "label": "Red",
        "format": "JPEG",
        "from_sidecar": ["keywords", "label", "rating", "gps"],
    }
    assert found.gps == (48.2, 16.4)
    assert found.title == "Old"
    assert found.text == "Old\nnew"


def test_overlay_of_nothing_changes_nothing() -> None:
    file = known(UTC_MOMENT, "DateTimeOriginal", rating=1, gps=(1.0, 2.0))
    assert overlay(file, known()) == file


@pytest.mark.parametrize(
    ("file", "beside", "wins"),
    [
        (known(UTC_MOMENT, "DateTimeOriginal"), known(LATER, "exif:DateTimeOriginal"), True),
        (known(UTC_MOMENT, "DateTimeOriginal"), known(EAST_MOMENT, "photoshop:DateCreated", "+02:00"), True),
        (known(EAST_MOMENT, "DateTimeOriginal", "+02:00"), known(UTC_MOMENT, "exif:DateTimeOriginal"), False),
        (
            known(EAST_MOMENT.astimezone(UTC), "DateTimeOriginal", "+02:00"),
            known(UTC_MOMENT, "exif:DateTimeOriginal"),
            False,
        ),
        (known(UTC_MOMENT, "DateTimeOriginal"), known(LATER, "xmp:CreateDate"), False),
        (known(UTC_MOMENT, "DateTime"), known(LATER, "xmp:CreateDate"), True),
        (known(), known(LATER, "xmp:CreateDate"), True),
        (known(UTC_MOMENT, "DateTime"), known(), False),
    ],
    ids=[
        "corrected",
        "offset-added",
        "offset-kept",
        "offset-kept-from-the-database",
        "lesser",
        "better",
        "only",
        "none",
    ],
)
def test_overlay_takes_the_sidecars_date_if_it_says_more(file: Facts, beside: Facts, *, wins: bool) -> None:
    found = overlay(file, beside)
    best = beside if wins else file
    assert found.captured_at == best.captured_at
    assert found.details["captured_from"] == best.details["captured_from"]
    assert found.details["captured_at_offset"] == best.details["captured_at_offset"]
