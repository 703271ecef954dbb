"""The type of every sort of file, from its bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pillow_jxl  # noqa: F401 - writes JPEG XL
import pypdfium2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pillow_heif import register_heif_opener

from pipeline.errors import PermanentStageError
from pipeline.media import kinds
from pipeline.media.kinds import FileType
from pipeline.media.sniff import sniff
from tests.images import corners, encoded
from tests.media_files import audio, cover_picture, video
from tests.raw_files import LONG, SHORT, Blob, camera, dng, shell, tiff

register_heif_opener()
VIDEOS = {"mp4": kinds.MP4, "mov": kinds.MOV, "mkv": kinds.MKV, "webm": kinds.WEBM, "avi": kinds.AVI}
SOUNDS = {
    "mp3": kinds.MP3, "m4a": kinds.M4A, "aac": kinds.AAC, "wav": kinds.WAV, "flac": kinds.FLAC,
    "ogg": kinds.OGG,
}  # fmt: skip
STILLS = {
    "JPEG": kinds.JPEG, "PNG": kinds.PNG, "WEBP": kinds.WEBP, "GIF": kinds.GIF, "TIFF": kinds.TIFF,
    "BMP": kinds.BMP, "HEIF": kinds.HEIC, "AVIF": kinds.AVIF, "JXL": kinds.JXL,
}  # fmt: skip
RAWS = {"CR2": kinds.CR2, "NEF": kinds.NEF, "ARW": kinds.ARW, "RAF": kinds.RAF, "RW2": kinds.RW2}


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


def type_of(folder: Path, data: bytes) -> FileType:
    return sniff(written(folder, data)).type


def refused(folder: Path, data: bytes) -> PermanentStageError:
    with pytest.raises(PermanentStageError) as raised:
        type_of(folder, data)
    assert raised.value.code == "UNSUPPORTED_TYPE"
    return raised.value


@pytest.mark.parametrize(("kind", "expected"), STILLS.items())
def test_stills(tmp_path: Path, kind: str, expected: FileType) -> None:
    found = sniff(written(tmp_path, encoded(corners(), kind)))
    assert (found.type, found.mime_type, found.kind) == (expected, expected.mime_type, expected.kind)


@pytest.mark.parametrize(("kind", "expected"), VIDEOS.items())
def test_videos(tmp_path: Path, kind: str, expected: FileType) -> None:
    assert sniff(video(tmp_path / "file", kind, seconds=0.2, sounds=1)).type is expected


@pytest.mark.parametrize(("kind", "expected"), SOUNDS.items())
def test_sounds(tmp_path: Path, kind: str, expected: FileType) -> None:
    assert sniff(audio(tmp_path / "file", kind)).type is expected


@pytest.mark.parametrize(("kind", "expected"), RAWS.items())
def test_raws(tmp_path: Path, kind: str, expected: FileType) -> None:
    assert type_of(tmp_path, shell(kind, corners())) is expected


@pytest.mark.parametrize("preview", [None, corners()])
def test_a_dng_with_and_without_preview(tmp_path: Path, preview: Image.Image | None) -> None:
    assert type_of(tmp_path, dng(corners((16, 16)), preview)) is kinds.DNG


def pdf() -> bytes:
    document, buffer = pypdfium2.PdfDocument.new(), BytesIO()
    document.new_page(100, 100)
    document.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("before", [b"", b"\n", b"\r\n", b"\x1b%-12345X@PJL\n", bytes(900)])
def test_a_pdf_may_start_within_the_first_kilobyte(tmp_path: Path, before: bytes) -> None:
    assert type_of(tmp_path, before + pdf()) is kinds.PDF


def test_a_pdf_after_the_first_kilobyte_is_none(tmp_path: Path) -> None:
    refused(tmp_path, bytes(1024) + pdf())


MORE: dict[str, tuple[Callable[[], bytes], FileType]] = {
    "a multi-picture JPEG": (
        lambda: encoded(corners(), "MPO", save_all=True, append_images=[corners()]), kinds.JPEG),
    "BigTIFF": (lambda: encoded(corners(), "TIFF", big_tiff=True), kinds.TIFF),
    "big-endian TIFF": (lambda: b"MM\0*\0\0\0\x08\0\0\0\0\0\0", kinds.TIFF),
    "a Nikon scan, no raw": (lambda: encoded(corners(), "TIFF", tiffinfo={271: "NIKON"}), kinds.TIFF),
    "a bare JPEG XL codestream": (
        lambda: encoded(corners(), "JXL", use_container=False, exif=None), kinds.JXL),
    "OS/2 BMP": (lambda: b"BM" + bytes(12) + struct.pack("<I", 12) + bytes(40), kinds.BMP),
    "a still in an unnamed coding": (lambda: box(b"ftyp", b"mif1\0\0\0\0mif1miaf"), kinds.HEIC),
    "AVIF behind mif1": (lambda: box(b"ftyp", b"mif1\0\0\0\0mif1avifmiaf"), kinds.AVIF),
    "HEIC behind mif1": (lambda: box(b"ftyp", b"mif1\0\0\0\0mif1heicmiaf"), kinds.HEIC),
    "a brand nobody knows": (lambda: box(b"ftyp", b"XXXX\0\0\0\0XXXXmp42"), kinds.MP4),
    "QuickTime before ftyp": (lambda: box(b"wide") + box(b"mdat", bytes(20)), kinds.MOV),
    "a wave file above 4 GB": (lambda: b"RF64\xff\xff\xff\xffWAVEds64" + bytes(40), kinds.WAV),
    "MP3 without a tag": (lambda: (b"\xff\xfb\x90\x00" + bytes(413)) * 3, kinds.MP3),
    "FLAC behind ID3": (lambda: b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + b"fLaC", kinds.FLAC),
    "AAC behind ID3": (lambda: b"ID3\4\0\0\0\0\0\0" + b"\xff\xf1\x50\x80\x01\x1f\xfc\0" * 3, kinds.AAC),
    "MP3 behind a large picture": (
        lambda: b"ID3\3\0\0\0\x0a\0\0" + bytes(163_840) + b"\xff\xfb\x90", kinds.MP3),
}  # fmt: skip


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


@pytest.mark.parametrize("name", MORE)
def test_less_usual_forms(tmp_path: Path, name: str) -> None:
    make, expected = MORE[name]
    assert type_of(tmp_path, make()) is expected


def test_an_mp4_with_nothing_but_sound_is_sound(tmp_path: Path) -> None:
    data = audio(tmp_path / "sound", "m4a").read_bytes().replace(b"ftypM4A ", b"ftypisom")
    assert type_of(tmp_path, data) is kinds.M4A


def test_an_mp3_with_a_cover_is_an_mp3(tmp_path: Path) -> None:
    assert sniff(audio(tmp_path / "file", "mp3", cover=cover_picture())).type is kinds.MP3


NOT_READ = {
    "nothing": b"",
    "one byte": b"\xff",
    "every byte": bytes(range(256)),
    "a ZIP": b"PK\3\4" + bytes(30),
    "BM and no header": b"BM" + bytes(100),
    "RIFF of MIDI": b"RIFF\x10\0\0\0RMID" + bytes(20),
    "EBML of another document": b"\x1aE\xdf\xa3\x84\x42\x82\x81x",
    "Ogg video": b"OggS" + bytes(24) + b"\x80theora",
    "Canon CR3": box(b"ftyp", b"crx \0\0\0\1crx isom"[:12]),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20),
    "MPEG audio of layer 2": b"\xff\xfd\x90\x00" + bytes(500),
    "one frame of MP3, then noise": b"\xff\xfb\x90\x00" + bytes(413) + b"noise" * 100,
    "GZIP": b"\x1f\x8b\x08" + bytes(20),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_anything_else_says_where_the_types_are_listed(tmp_path: Path, name: str) -> None:
    assert "docs/metadata.md" in refused(tmp_path, NOT_READ[name]).message


def test_every_type_is_listed_there() -> None:
    listed = (Path(__file__).resolve().parents[2] / "docs" / "metadata.md").read_text(encoding="utf-8")
    assert [one.name for one in kinds.TYPES if one.name not in listed.partition("## Every kind")[0]] == []


def test_a_raw_of_another_make_is_no_tiff(tmp_path: Path) -> None:
    values = {259: (SHORT, [65535]), 273: Blob(bytes(64)), 279: (LONG, [64])}
    assert "camera's raw file" in refused(tmp_path, tiff([camera("PENTAX") | values])).message


def test_looping_directories_end(tmp_path: Path) -> None:
    looped = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 330, 4, 1, 8, 8)  # below and after itself
    assert type_of(tmp_path, looped) is kinds.TIFF


def test_a_polyglot_is_what_its_first_bytes_say(tmp_path: Path) -> None:
    assert type_of(tmp_path, encoded(corners()) + pdf() + b"PK\3\4") is kinds.JPEG
    assert type_of(tmp_path, encoded(corners(), "GIF") + b"<svg/>") is kinds.GIF


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_no_bytes_whatever_make_it_fail_otherwise(tmp_path: Path, data: st.DataObject) -> None:
    starts = [
        b"",
        b"II*\0\x08\0\0\0",
        b"MM\0+\0\x08\0\0",
        b"\0\0\0\x18ftyp",
        b"\0\0\0\x08moov",
        b"RIFF",
        b"ID3\3",
    ]
    starts += [
        b"\x1aE\xdf\xa3",
        b"\xff\xfb",
        b"OggS",
        b"<?xml",
        b"<!DOCTYPE x [",
        b"\xff\xfe",
        b"IIU\0\x08\0\0\0",
    ]
    start = data.draw(st.sampled_from(starts))
    try:
        assert type_of(tmp_path, start + data.draw(st.binary(max_size=300))) in kinds.TYPES
    except PermanentStageError as error:
        assert error.code == "UNSUPPORTED_TYPE"  # noqa: PT017 - most are refused
