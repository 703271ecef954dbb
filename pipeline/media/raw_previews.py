"""The JPEGs that cameras put beside the sensor's values in raw files, found without a raw decoder.

Sources: TIFF/EP, DNG 1.7; for CR2, RAF and RW2 what ExifTool and LibRaw know of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ContainerIO import ContainerIO

from pipeline.errors import PermanentStageError
from pipeline.media import tiff
from pipeline.media.ifd import IfdError
from pipeline.media.image import decoding

WANTED = frozenset(
    {
        tiff.COMPRESSION, tiff.PHOTOMETRIC, tiff.STRIPS, tiff.STRIP_BYTES, tiff.JPEG_START, tiff.JPEG_BYTES,
        tiff.ORIENTATION,
    }
)  # fmt: skip
_LARGEST = 100_000_000  # bytes
_RAF_MAGIC, _RAF_HEAD = b"FUJIFILMCCD-RAW ", 92
_RAF_PREVIEW = 84  # where offset and length of its JPEG stand, in 32 bits each
_RW2_PREVIEW = 0x002E  # JpgFromRaw: the JPEG itself is the tag's value
_JPEG = frozenset({6, 7})  # Compression, old and new
_START, _SCAN = 0xD8, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODABLE = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; sensor's values are lossless
_MOST_SEGMENTS = 200


def largest_preview(file: BinaryIO, path: Path, pixel_limit: int) -> Image.Image | None:
    """The largest preview in the raw ``file``, which is at ``path``; None if there is none.

    No pixel is decoded yet, and ``file`` must stay open until it is.
    """
    best: Image.Image | None = None
    for stream in _streams(file):
        if not _is_picture(stream):
            continue
        stream.seek(0)
        with suppress(PermanentStageError), decoding(path):
            found = Image.open(stream, formats=("JPEG",))
            if _pixels(best) < _pixels(found) <= pixel_limit:
                best = found
    return best


def _pixels(image: Image.Image | None) -> int:
    return 0 if image is None else image.width * image.height


def _streams(file: BinaryIO) -> Iterator[BinaryIO]:
    """What the file says are JPEGs."""
    end = file.seek(0, 2)
    file.seek(0)
    head = file.read(_RAF_HEAD)
    if head.startswith(_RAF_MAGIC):
        places = [(int.from_bytes(head[at : at + 4], "big")) for at in (_RAF_PREVIEW, _RAF_PREVIEW + 4)]
        yield ContainerIO(file, places[0], min(places[1], end))  # type: ignore[misc]
        return
    with suppress(IfdError):
        structure = tiff.Tiff(file)
        inside = structure.directory(structure.first, {_RW2_PREVIEW}, {_RW2_PREVIEW: _LARGEST})
        if isinstance(data := inside.get(_RW2_PREVIEW), bytes):
            yield BytesIO(data)
        for tags in structure.directories(WANTED):
            start, length = _place(tags)
            if 0 < start < end:
                yield ContainerIO(file, start, min(length, end - start))  # type: ignore[misc]


def _place(tags: tiff.Tags) -> tuple[int, int]:
    """Where the JPEG of a directory stands, and how many bytes it has; zeros if it is none."""
    if tiff.JPEG_START in tags:
        return tiff.number(tags, tiff.JPEG_START), tiff.number(tags, tiff.JPEG_BYTES)
    is_jpeg = tiff.number(tags, tiff.COMPRESSION) in _JPEG
    if is_jpeg and tiff.number(tags, tiff.PHOTOMETRIC) not in {tiff.CFA, tiff.LINEAR_RAW}:
        return tiff.number(tags, tiff.STRIPS), tiff.number(tags, tiff.STRIP_BYTES)
    return 0, 0


def _is_picture(stream: BinaryIO) -> bool:
    """Whether the JPEG is one to look at: sensors' values are often packed as JPEGs of another sort."""
    if stream.read(2) != bytes((0xFF, _START)):
        return False
    for _ in range(_MOST_SEGMENTS):
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == _SCAN:  # noqa: PLR2004 - a marker and a length
            return False
        if head[1] in _FRAMES:
            return head[1] in _DECODABLE
        stream.seek(int.from_bytes(head[2:], "big") - 2, 1)
    return False
