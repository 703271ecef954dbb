"""The reader of camera raw files: DNG, CR2, NEF, ARW, RAF and RW2.

Cameras put one to three JPEGs of the picture beside the sensor's values. The largest is taken if it is large
enough, which costs no more than any JPEG; else LibRaw develops the values at half size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import rawpy
from PIL import Image

from pipeline.errors import PermanentStageError
from pipeline.media import tiff
from pipeline.media.facts import read_facts
from pipeline.media.ifd import IfdError
from pipeline.media.image import DECODER_ERRORS, MEMORY, SIDEWAYS, UPRIGHT, Still
from pipeline.media.raw_previews import WANTED, largest_preview
from pipeline.media.reader import Description, Limits, Size

_FLIPS = {0: 1, 3: 3, 5: 8, 6: 6}  # EXIF's Orientation for LibRaw's flip
#: Bytes a pixel that developing takes: half size for a mosaic of colours, whole where each pixel has all
_MOSAIC_BYTES, _LINEAR_BYTES = 8, 22
_NEARLY = 0.8  # of the wanted size: a preview that falls so little short is not worth seconds of developing
_LIBRAW_ERRORS = (rawpy.LibRawError, rawpy.NotSupportedError, *DECODER_ERRORS)


@dataclass(frozen=True, slots=True)
class _Raw:
    """An open raw file."""

    libraw: rawpy.RawPy | None  #: None: the camera is not known, or the file is damaged
    size: Size | None  #: of the real picture as stored; None where LibRaw is
    preview: Image.Image | None
    orientation: int  #: EXIF's, 1 to 8
    is_linear: bool  #: the values are no mosaic


def describe(path: Path, limits: Limits) -> Description:
    """What the file says of itself. Its dimensions are the real picture's, not the preview's.

    Raises:
        PermanentStageError: IMAGE_TOO_LARGE or CORRUPT_IMAGE.
    """
    with _opened(path, limits, (0, 0)) as raw:
        notes = () if raw.size else ("The camera is not known; dimensions and picture are the preview's.",)
        image = raw.preview or Image.new("RGB", (1, 1))
        facts = read_facts(Still(image, path, raw.orientation, 1, notes), path)
        width, height = raw.size or image.size
        return Description(
            *((height, width) if raw.orientation in SIDEWAYS else (width, height)),
            orientation=raw.orientation,
            captured_at=facts.captured_at,
            gps=facts.gps,
            title=facts.title,
            text=facts.text[: limits.text],
            details=_details(raw) | facts.details,
            warnings=facts.warnings,
        )


def _details(raw: _Raw) -> dict[str, Any]:
    details: dict[str, Any] = {
        "format": "RAW",
        "frames": 1,
        "animated": False,
        "has_alpha": False,
        "orientation": raw.orientation,
        "preview": {"width": raw.preview.width, "height": raw.preview.height} if raw.preview else None,
    }
    with suppress(*_LIBRAW_ERRORS):
        details |= {"bits": int(raw.libraw.white_level).bit_length()} if raw.libraw else {}
    return details


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:
    """The preview if it covers ``at_least``, else the developed picture at half size, else any preview.

    Raises:
        PermanentStageError: IMAGE_TOO_LARGE or CORRUPT_IMAGE.
    """
    with _opened(path, limits, at_least) as raw:
        if not _covers(raw.preview, at_least, raw.orientation) and (developed := _developed(raw)) is not None:
            yield Still(developed, path, raw.orientation, 1, ())  # LibRaw has turned it
        elif raw.preview is not None:
            yield Still(raw.preview, path, raw.orientation, _left_to_turn(raw), ())
        else:
            raise _unreadable()


@contextmanager
def _opened(path: Path, limits: Limits, at_least: Size) -> Iterator[_Raw]:
    with path.open("rb") as file, _libraw(path) as opened:
        size = _size(opened, limits) if opened else None
        libraw = opened if size else None
        preview = largest_preview(file, path, limits.pixels)
        directories: list[tiff.Tags] = []
        with suppress(IfdError):
            directories += tiff.Tiff(file).directories(WANTED)
        orientation = _orientation(libraw, directories, preview)
        if libraw and (preview is None or not _covers(preview, at_least, orientation)):
            preview = _larger(preview, _thumbnail(libraw, limits))
        if libraw is None and preview is None:
            raise _unreadable()
        is_linear = any(tiff.number(tags, tiff.PHOTOMETRIC) == tiff.LINEAR_RAW for tags in directories)
        yield _Raw(libraw, size, preview, orientation, is_linear)


@contextmanager
def _libraw(path: Path) -> Iterator[rawpy.RawPy | None]:
    raw = None
    with suppress(*_LIBRAW_ERRORS):
        raw = rawpy.imread(str(path))  # headers only
    try:
        yield raw
    finally:
        if raw is not None:
            raw.close()


def _unreadable() -> PermanentStageError:
    return PermanentStageError(
        "The raw file is damaged, or of a camera that is not known, and has no preview; "
        "upload it again, or as DNG or JPEG.",
        code="CORRUPT_IMAGE",
    )


def _size(libraw: rawpy.RawPy, limits: Limits) -> Size | None:
    """Width and height as stored, by the camera's own crop; None where there is no picture."""
    sizes = libraw.sizes
    if sizes.raw_width * sizes.raw_height > limits.pixels:
        raise PermanentStageError(
            f"The picture has {sizes.raw_width} x {sizes.raw_height} pixels, and the limit is "
            f"{limits.pixels / 1e6:.1f} megapixels; upload a smaller one.",
            code="IMAGE_TOO_LARGE",
        )
    if 0 < sizes.crop_width <= sizes.width and 0 < sizes.crop_height <= sizes.height:
        return sizes.crop_width, sizes.crop_height
    return (sizes.width, sizes.height) if sizes.width and sizes.height else None


def _orientation(
    libraw: rawpy.RawPy | None, directories: list[tiff.Tags], preview: Image.Image | None
) -> int:
    """By LibRaw, else by the first directory that has one, else by the preview."""
    if libraw is not None:
        return _FLIPS.get(libraw.sizes.flip, 1)
    found = [tiff.number(tags, tiff.ORIENTATION) for tags in directories]
    with suppress(*DECODER_ERRORS):
        found += [preview.getexif().get(tiff.ORIENTATION, 1)] if preview else []
    return next((one for one in found if one in UPRIGHT), 1)


def _covers(preview: Image.Image | None, at_least: Size, orientation: int) -> bool:
    if preview is None:
        return False
    width, height = reversed(preview.size) if orientation in SIDEWAYS else preview.size
    return width >= at_least[0] * _NEARLY and height >= at_least[1] * _NEARLY


def _left_to_turn(raw: _Raw) -> int:
    """The orientation that the preview still needs: none if it stands where the stored picture lies."""
    if raw.preview is None or raw.size is None or raw.orientation not in SIDEWAYS:
        return raw.orientation
    is_wide = raw.preview.width > raw.preview.height
    return raw.orientation if is_wide == (raw.size[0] > raw.size[1]) else 1


def _thumbnail(libraw: rawpy.RawPy, limits: Limits) -> Image.Image | None:
    """LibRaw's preview: it knows makers' notes, where older cameras keep theirs."""
    with suppress(*_LIBRAW_ERRORS):
        found = libraw.extract_thumb()
        if isinstance(found.data, bytes):
            image: Image.Image = Image.open(BytesIO(found.data), formats=("JPEG",))
        else:
            image = Image.fromarray(found.data)
        return image if image.width * image.height <= limits.pixels else None
    return None


def _larger(one: Image.Image | None, two: Image.Image | None) -> Image.Image | None:
    found = [image for image in (one, two) if image is not None]
    return max(found, key=lambda image: image.width, default=None)


def _developed(raw: _Raw) -> Image.Image | None:
    """The values, upright in sRGB at half size; None if LibRaw cannot, or the preview is no smaller."""
    if raw.libraw is None or raw.size is None:
        return None
    if raw.preview is not None and max(raw.preview.size) >= max(raw.size) // 2:
        return None
    if raw.size[0] * raw.size[1] * (_LINEAR_BYTES if raw.is_linear else _MOSAIC_BYTES) > MEMORY:
        return None
    with suppress(*_LIBRAW_ERRORS):
        return Image.fromarray(raw.libraw.postprocess(half_size=True, use_camera_wb=True, output_bps=8))
    return None
