"""What a file is, from its bytes alone; its name and the uploader's word only give warnings.

At most some 64 KB are read, and no decoder runs: whether the file is whole is its reader's business.
A file that could be two things is what its first bytes say.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipeline.errors import PermanentStageError
from pipeline.media import kinds, tiff
from pipeline.media.av_ends import id3_length
from pipeline.media.boxes import Box, boxes, find, payload
from pipeline.media.ifd import IfdError
from pipeline.media.jxl import CODESTREAM, CONTAINER
from pipeline.media.kinds import FileType, Kind
from pipeline.media.sniff_text import text_type

_HEAD = 65_536  # bytes
_ARCHIVE = b"PK\3\4"  # ZIP, which holds files as they are
_PDF_WITHIN = 1024  # of the start: junk before it is common, and every reader takes it
_MAGIC = (
    (b"\xff\xd8\xff", kinds.JPEG),
    (b"\x89PNG\r\n\x1a\n", kinds.PNG),
    (b"GIF87a", kinds.GIF),
    (b"GIF89a", kinds.GIF),
    (b"FUJIFILMCCD-RAW ", kinds.RAF),
    (b"IIU\0", kinds.RW2),
    (b"fLaC", kinds.FLAC),
    (CODESTREAM, kinds.JXL),
    (CONTAINER, kinds.JXL),
)
_RIFF = {b"WEBP": kinds.WEBP, b"AVI ": kinds.AVI, b"WAVE": kinds.WAV}
_STILLS = (b"mif1", b"mif2", b"msf1")
_BRANDS: tuple[tuple[tuple[bytes, ...], FileType], ...] = (
    ((b"avif", b"avis"), kinds.AVIF),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), kinds.HEIC),
    (_STILLS, kinds.HEIC),  # in whatever coding: libheif will see
    ((b"M4A ", b"M4B ", b"F4A ", b"F4B "), kinds.M4A),
    ((b"qt  ",), kinds.MOV),
    ((b"isom", b"iso", b"mp4", b"avc1", b"M4V", b"MSNV", b"dash", b"cmf", b"f4v", b"3g", b"XAVC"), kinds.MP4),
)
_QUICKTIME_STARTS = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # before there was ftyp
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes
_RAW_CODINGS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})  # Compression of Sony, Nikon and others
_RAW_TAGS = {tiff.DNG_VERSION, tiff.PHOTOMETRIC, tiff.COMPRESSION, tiff.SUBFILE_TYPE, tiff.MAKE}
_EBML_DOCTYPE = b"\x42\x82"
_OGG_VIDEO = (b"\x80theora", b"BBCD\0", b"\x01video\0")

# An instance of its own: the module's functions read the machine's tables, and would differ between machines.
_NAMES = mimetypes.MimeTypes()
_SAYS_NOTHING = frozenset({"", "application/octet-stream", "binary/octet-stream"})


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What the bytes say."""

    type: FileType
    warnings: tuple[str, ...] = ()

    @property
    def mime_type(self) -> str:
        """The type's MIME type."""
        return self.type.mime_type

    @property
    def kind(self) -> Kind:
        """The type's kind."""
        return self.type.kind


def sniff(path: Path, *, name: str = "", content_type: str | None = None) -> Sniffed:
    """Find the type of the file at ``path``; ``name`` and ``content_type`` are what the uploader called it.

    The name decides one thing: between plain text and Fountain, which is plain text.

    Raises:
        PermanentStageError: UNSUPPORTED_TYPE.
    """
    with path.open("rb") as file:
        found = _type_of(file, name)
    if found is None:
        raise _unsupported("Whatever its name says, the file is of no type")
    return Sniffed(found, tuple(_disagreements(found, name, content_type)))


def _type_of(file: BinaryIO, name: str) -> FileType | None:
    head = file.read(_HEAD)
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    for starts, rule in _FAMILIES:
        if head.startswith(starts) and (member := rule(head, file)):
            return member
    if head[4:8] == b"ftyp":
        return _of_brands(head, file)
    if head[4:8] in _QUICKTIME_STARTS and _is_old_quicktime(head, file):
        return kinds.MOV
    if (written := text_type(head, whole=len(head) < _HEAD, name=name)) is not None:
        return written
    return kinds.PDF if b"%PDF-" in head[:_PDF_WITHIN] and not head.startswith(_ARCHIVE) else None


def _unsupported(why: str) -> PermanentStageError:
    return PermanentStageError(
        f"{why} that Dailies reads; convert it, or keep it elsewhere (docs/metadata.md lists the types).",
        code="UNSUPPORTED_TYPE",
    )


def _of_riff(head: bytes, _file: BinaryIO) -> FileType | None:
    return _RIFF.get(head[8:12])


def _of_tiff(head: bytes, file: BinaryIO) -> FileType | None:
    """A picture, or the raw file of a camera, whose directories say so."""
    if head[8:10] == b"CR" and head.startswith(b"II*\0"):
        return kinds.CR2
    try:
        directories = list(tiff.Tiff(file).directories(_RAW_TAGS))
    except IfdError:
        directories = []
    if not any(map(_is_raw, directories)):
        return kinds.TIFF
    if any(tiff.DNG_VERSION in tags for tags in directories):
        return kinds.DNG
    make = tiff.text(directories[0], tiff.MAKE).upper()
    for start, found in (("NIKON", kinds.NEF), ("SONY", kinds.ARW)):
        if make.startswith(start):
            return found
    raise _unsupported("The file is a camera's raw file of no make")


def _is_raw(tags: tiff.Tags) -> bool:
    """Whether a directory is a sensor's values, or a small picture above the real one."""
    return (
        tiff.DNG_VERSION in tags
        or tiff.number(tags, tiff.PHOTOMETRIC) in {tiff.CFA, tiff.LINEAR_RAW}
        or tiff.number(tags, tiff.COMPRESSION) in _RAW_CODINGS
        or (tiff.SUB_DIRECTORIES in tags and tiff.number(tags, tiff.SUBFILE_TYPE) == tiff.REDUCED)
    )


def _of_ebml(head: bytes, _file: BinaryIO) -> FileType | None:
    """Matroska or WebM, by the DocType in the header (RFC 8794, section 11.2.4)."""
    at = head[:1024].find(_EBML_DOCTYPE)
    if at < 0 or len(head) < at + 3:
        return None
    doctype = head[at + 3 : at + 3 + (head[at + 2] & 0x7F)].rstrip(b"\0")
    return {b"matroska": kinds.MKV, b"webm": kinds.WEBM}.get(doctype)


def _of_ogg(head: bytes, _file: BinaryIO) -> FileType | None:
    return None if any(mark in head[:4096] for mark in _OGG_VIDEO) else kinds.OGG


def _of_bmp(head: bytes, _file: BinaryIO) -> FileType | None:
    return kinds.BMP if head[15:18] == bytes(3) and head[14] in _BMP_HEADERS else None


def _of_pdf(_head: bytes, _file: BinaryIO) -> FileType | None:
    return kinds.PDF


def _of_id3(head: bytes, file: BinaryIO) -> FileType | None:
    """What stands behind an ID3v2 tag; MP3 where it cannot be told, since MP3 is what they are made for."""
    if len(head) < 10 or head[3] not in {2, 3, 4} or max(head[6:10]) > 0x7F:  # noqa: PLR2004 - ID3v2.4, 3.1
        return None
    file.seek(id3_length(head))
    after = file.read(_PDF_WITHIN * 4).lstrip(b"\0")
    return kinds.FLAC if after.startswith(b"fLaC") else _of_mpeg(after, file) or kinds.MP3


def _of_mpeg(head: bytes, _file: BinaryIO) -> FileType | None:
    """MPEG audio of layer 3, or AAC in ADTS: two frames in a row, as far as the head reaches."""
    for length_of, found in ((_mp3_frame, kinds.MP3), (_adts_frame, kinds.AAC)):
        length = length_of(head[:7])
        if length and (len(head) < length + 7 or length_of(head[length : length + 7])):
            return found
    return None


_MP3_RATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s, MPEG 1
_MP3_LOW_RATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
_MP3_SAMPLING = (44_100, 48_000, 32_000)  # Hz, MPEG 1; half of it in 2, a quarter in 2.5


def _mp3_frame(head: bytes) -> int:
    """Bytes of the frame that starts with ``head`` (ISO/IEC 11172-3, 2.4.1.3); 0 if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # noqa: PLR2004 - sync, layer 3
        return 0
    version, rate, sampling = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate in {0, 15} or sampling == 3:  # noqa: PLR2004 - reserved values
        return 0
    first = version == 3  # noqa: PLR2004 - MPEG 1
    bits = (_MP3_RATES if first else _MP3_LOW_RATES)[rate] * 1000
    hertz = _MP3_SAMPLING[sampling] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if first else 72) * bits // hertz + (head[2] >> 1 & 1)


def _adts_frame(head: bytes) -> int:
    """Bytes of the frame that starts with ``head`` (ISO/IEC 13818-7, 6.2); 0 if none does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:  # noqa: PLR2004
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else 0  # noqa: PLR2004 - the header's own


def _of_brands(head: bytes, file: BinaryIO) -> FileType | None:
    """By the major brand, then by the compatible ones (ISO/IEC 14496-12, section 4.3)."""
    size = min(int.from_bytes(head[:4], "big"), 256)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    # Some say only that it is a still: the others, in which coding.
    for brand in sorted(brands, key=_STILLS.__contains__):
        for starts, found in _BRANDS:
            if brand and brand.startswith(starts):
                return kinds.M4A if found is kinds.MP4 and _only_sound(file) else found
    return None


def _only_sound(file: BinaryIO) -> bool:
    """Whether an MP4 has sound and no picture: recorders on phones say M4A in the name alone."""
    movie = next((box for box in boxes(file, 0, file.seek(0, 2)) if box.name == b"moov"), None)
    if movie is None:
        return False
    tracks = (box for box in boxes(file, movie.start, movie.end) if box.name == b"trak")
    handlers = {_handler(file, track) for track in tracks}
    return b"soun" in handlers and b"vide" not in handlers


def _handler(file: BinaryIO, track: Box) -> bytes:
    handler = find(file, track, b"mdia", b"hdlr")
    return b"" if handler is None else payload(file, handler, 12)[8:]


def _is_old_quicktime(head: bytes, file: BinaryIO) -> bool:
    """Whether the file is boxes, of which one is the movie or its data; nothing shorter proves it."""
    end = file.seek(0, 2)
    fits = int.from_bytes(head[:4], "big") in {0, 1} or int.from_bytes(head[:4], "big") <= end
    return fits and any(box.name in {b"moov", b"mdat"} for box in boxes(file, 0, end))


_FAMILIES: tuple[tuple[tuple[bytes, ...], Callable[[bytes, BinaryIO], FileType | None]], ...] = (
    ((b"RIFF", b"RF64", b"BW64"), _of_riff),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _of_tiff),  # the last two are BigTIFF
    ((b"\x1aE\xdf\xa3",), _of_ebml),
    ((b"OggS",), _of_ogg),
    ((b"ID3",), _of_id3),
    ((b"BM",), _of_bmp),
    ((b"%PDF-", b"\n%PDF-", b"\r\n%PDF-", b"\xef\xbb\xbf%PDF-"), _of_pdf),
    ((b"\xff",), _of_mpeg),
)


def _disagreements(found: FileType, name: str, content_type: str | None) -> list[str]:
    extension = PurePosixPath(name).suffix.lower()
    known = kinds.BY_EXTENSION.get(extension)
    by_name = known.mime_type if known else _NAMES.guess_type(name, strict=True)[0]
    said = (content_type or "").partition(";")[0].strip().lower()
    warnings = []
    if by_name is not None and extension not in found.extensions and not _means(found, by_name):
        warnings.append(f"The name says {by_name}, the bytes are {found.mime_type}.")
    if said not in _SAYS_NOTHING and not _means(found, said):
        warnings.append(f"The upload was declared as {said}, the bytes are {found.mime_type}.")
    return warnings


def _means(found: FileType, mime_type: str) -> bool:
    """Whether ``mime_type`` is a name of ``found``. Plain text goes by many: CSV, subtitles, source code."""
    if found is kinds.TEXT and mime_type.startswith("text/"):
        return mime_type not in {"text/html", kinds.FOUNTAIN.mime_type}
    return mime_type == found.mime_type or mime_type in found.aliases
