"""One small sound file of every type, quick to read: what is cut, bent and searched for more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pillow_heif
from pillow_jxl import JpegXLImagePlugin

from tests import media_files, metadata_files, raw_files
from tests.documents import pdf, svg
from tests.images import detailed, display_p3, encoded, gps_tags, with_exif
from tests.kinds import NOTES, SCRIPT

assert JpegXLImagePlugin  # imported: Pillow knows JPEG XL
SIZE, FILM = (240, 160), (64, 36)
TAGS = {"title": "Dune"}
KEYWORDS = metadata_files.packet(metadata_files.bag("dc:subject", "dune", "wren"), xmp__Rating="5")


def make(folder: Path) -> dict[str, Path]:
    """Write them into ``folder``; by extension."""
    paths = {extension: folder / f"good.{extension}" for extension in WRITERS}
    for extension, path in paths.items():
        path.write_bytes(made(extension, path))
    return paths


def made(extension: str, path: Path) -> bytes:
    """The file of ``extension``; what is written on the way is written to ``path``."""
    written = WRITERS[extension](path)
    return written if isinstance(written, bytes) else path.read_bytes()


def photograph() -> bytes:
    """A JPEG with EXIF, GPS, XMP, IPTC and a profile."""
    taken = {0x010F: "Maker", 0x9003: "2024:05:06 07:08:09", 0x829A: 0.01, 0x8827: 400}
    exif = with_exif(taken, gps_tags(48.2, 16.4))
    start = exif.index(b"Exif\0\0")
    block = exif[start : start + int.from_bytes(exif[start - 2 : start])]
    data = encoded(detailed(SIZE), quality=80, exif=block, icc_profile=display_p3(), xmp=KEYWORDS)
    caption = metadata_files.resource(0x404, metadata_files.iim((120, b"A caption"), (25, b"wren")))
    body = b"Photoshop 3.0\0" + caption
    return data[:2] + b"\xff\xed" + (len(body) + 2).to_bytes(2) + body + data[2:]


def _still(kind: str, **options: object) -> Callable[[Path], bytes]:
    return lambda _path: encoded(detailed(SIZE), kind, **options)


def _heic(path: Path) -> None:
    pillow_heif.from_pillow(detailed(SIZE)).save(path, quality=60)


def _video(kind: str) -> Callable[[Path], object]:
    return lambda path: media_files.video(
        path, kind, seconds=1.4, size=FILM, sounds=1, tags={"title": "Dune"}
    )


def _audio(kind: str) -> Callable[[Path], object]:
    cover = media_files.cover_picture() if kind == "mp3" else None
    tone = media_files.tone(0.5)
    return lambda path: media_files.audio(path, kind, samples=tone, tags=TAGS, cover=cover)


def _shell(kind: str) -> Callable[[Path], bytes]:
    return lambda _path: raw_files.shell(kind, detailed(SIZE))


DRAWING = '<title>Wren</title><rect width="80" height="90" fill="red"/><text x="9" y="40">Dune</text>'
WRITERS: dict[str, Callable[[Path], object]] = {
    "jpg": lambda _path: photograph(),
    "png": _still("PNG", icc_profile=display_p3()),
    "webp": _still("WEBP", quality=70, xmp=KEYWORDS),
    "gif": _still("GIF"),
    "tif": _still("TIFF", compression="tiff_lzw"),
    "bmp": _still("BMP"),
    "heic": _heic,
    "avif": _still("AVIF", quality=50),
    "jxl": _still("JXL"),
    "dng": lambda _path: raw_files.dng(detailed((48, 32)), detailed(SIZE)),
    **{kind.lower(): _shell(kind) for kind in ("CR2", "NEF", "ARW", "RAF", "RW2")},
    "svg": lambda _path: svg(DRAWING).encode(),
    **{kind: _video(kind) for kind in media_files.VIDEO_TYPES},
    **{kind: _audio(kind) for kind in media_files.AUDIO_TYPES},
    "pdf": lambda _path: pdf("Call sheet", "Second page", info="/Title (Dune) /CreationDate (D:20240506)"),
    "txt": lambda _path: NOTES.encode(),
    "fountain": lambda _path: SCRIPT.encode(),
    "xmp": lambda _path: KEYWORDS,
}
