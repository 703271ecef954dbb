from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.motion import motion_photo
from pipeline.media.xmp import Values, read_packet
from tests.metadata_files import facts, jpeg, packet

FILM = struct.pack(">I", 24) + b"ftypmp42" + bytes(400)
WARNING = "The picture announces a film of the moment, but none is where it says."


def container(*items: tuple[str, int, int]) -> str:
    """Google's directory of what lies in the file: semantic, length, padding."""
    inside = "".join(
        f"<rdf:li rdf:parseType='Resource'><Container:Item Item:Mime='video/mp4' Item:Semantic='{semantic}' "
        f"Item:Length='{length}' Item:Padding='{padding}'/></rdf:li>"
        for semantic, length, padding in items
    )
    return f"<Container:Directory><rdf:Seq>{inside}</rdf:Seq></Container:Directory>"


def samsung(film: bytes) -> bytes:
    """What a Galaxy puts behind the picture: the film as a field, the directory of fields."""
    name = b"MotionPhoto_Data"
    field = struct.pack("<HHI", 0, 0x0A30, len(name)) + name + film
    other = struct.pack("<HHI", 0, 0x0A01, 14) + b"Image_UTC_Data" + b"1714972089000"
    rows = [(0x0A30, len(field) + len(other), len(field)), (0x0A01, len(other), len(other))]
    table = b"SEFH" + struct.pack("<II", 106, 2) + b"".join(struct.pack("<HHII", 0, *row) for row in rows)
    return field + other + table + struct.pack("<I", len(table)) + b"SEFT"


@pytest.mark.parametrize("film", [FILM, FILM.replace(b"mp42", b"qt  ")], ids=["mp4", "mov"])
@pytest.mark.parametrize(
    "xmp",
    [
        packet(GCamera__MicroVideo="1", GCamera__MicroVideoOffset=str(len(FILM))),
        packet(container(("Primary", 0, 8), ("MotionPhoto", len(FILM), 0)), GCamera__MotionPhoto="1"),
    ],
    ids=["microvideo", "motion-photo"],
)
def test_film_that_google_announces_is_found(tmp_path: Path, xmp: bytes, film: bytes) -> None:
    data = jpeg(xmp=xmp, behind=film)
    found = facts(tmp_path, data)
    mime_type = "video/mp4" if film is FILM else "video/quicktime"
    offset = len(data) - len(FILM)
    assert found.details["motion_photo"] == {"mime_type": mime_type, "offset": offset, "length": len(FILM)}
    assert found.warnings == ()


def test_film_before_another_item_is_found(tmp_path: Path) -> None:
    xmp = packet(container(("Primary", 0, 0), ("MotionPhoto", len(FILM), 0), ("GainMap", 50, 10)))
    data = jpeg(xmp=xmp, behind=FILM + bytes(60))
    assert facts(tmp_path, data).details["motion_photo"]["offset"] == len(data) - len(FILM) - 60


@pytest.mark.parametrize("length", [len(FILM) - 1, 10**6, 10**30, -5])
def test_film_that_is_not_there_is_a_warning(tmp_path: Path, length: int) -> None:
    found = facts(tmp_path, jpeg(xmp=packet(GCamera__MicroVideoOffset=str(length)), behind=FILM))
    assert "motion_photo" not in found.details
    assert found.warnings == (WARNING,)


def test_film_in_samsungs_trailer_is_found(tmp_path: Path) -> None:
    data = jpeg(behind=samsung(FILM))
    found = facts(tmp_path, data)
    assert found.details["motion_photo"] == {
        "mime_type": "video/mp4",
        "offset": data.index(FILM),
        "length": len(FILM),
    }


def test_picture_without_film_says_nothing(tmp_path: Path) -> None:
    found = facts(tmp_path, jpeg(behind=samsung(b"no film")))
    assert "motion_photo" not in found.details
    assert found.warnings == ()


@given(st.binary(max_size=80), st.sampled_from([b"", b"SEFT", b"\x14\0\0\0SEFT"]))
def test_no_trailer_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, end: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(samsung(noise) + noise + end)
    film, warning = motion_photo(path, Values())
    assert warning is None
    assert film is None or noise[4:8] == b"ftyp"


def test_hostile_directory_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    values = read_packet(packet(container(*[("MotionPhoto", 2**62, 2**62)] * 50)))
    assert motion_photo(path, values) == (None, WARNING)
