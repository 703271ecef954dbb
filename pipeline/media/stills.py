"""The reader of pictures: most by Pillow, HEIC and JPEG XL by its plugins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pillow_heif
from PIL import AvifImagePlugin, ExifTags
from pillow_jxl import JpegXLImagePlugin

from pipeline.media import headers, image
from pipeline.media.colour import profile_name
from pipeline.media.facts import read_facts
from pipeline.media.image import Still, open_still
from pipeline.media.jxl import read_header
from pipeline.media.reader import Description, Limits, Size

#: AVIF before HEIF: both take a file that only says that it is a still, and AVIF's decoder knows its own.
FORMATS = (*image.FORMATS, "AVIF", "HEIF", "JXL")
MOST_FRAMES = 10_000  #: counted
_MOVING = frozenset({"GIF", "WEBP", "PNG", "AVIF"})  # more than one frame is an animation, not pages
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273

# One thread a decode: the workers are one process a core.
pillow_heif.register_heif_opener(decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
JpegXLImagePlugin.DECODE_THREADS = 0


def describe(path: Path, limits: Limits) -> Description:
    """What the picture says of itself; no pixel is decoded, but for JPEG XL.

    Raises:
        PermanentStageError: IMAGE_TOO_LARGE, TRUNCATED_IMAGE or CORRUPT_IMAGE.
    """
    with picture(path, limits, (0, 0)) as still:
        facts = read_facts(still, path)
        details, warnings = _details(still)
        width, height = still.size
        return Description(
            width=width,
            height=height,
            orientation=still.orientation,
            captured_at=facts.captured_at,
            gps=facts.gps,
            title=facts.title,
            text=facts.text[: limits.text],
            details=details | facts.details,
            warnings=(*facts.warnings, *warnings),
        )


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:  # noqa: ARG001 - a Reader's
    """The picture, its first frame if it has several. A JPEG is scaled in its decoder by whoever reduces it.

    Raises:
        PermanentStageError: IMAGE_TOO_LARGE, TRUNCATED_IMAGE or CORRUPT_IMAGE.
    """
    with open_still(path, pixel_limit=limits.pixels, formats=FORMATS) as still:
        yield still


def _details(still: Still) -> tuple[dict[str, Any], list[str]]:
    opened = still.image
    counted = frame_count(still)
    frames = min(counted, MOST_FRAMES)
    hdr = _hdr(still)
    details: dict[str, Any] = {
        "format": opened.format,
        "mode": opened.mode,
        "bits": bit_depth(still),
        "frames": frames,
        "animated": read_header(still.path).animated
        if opened.format == "JXL"
        else opened.format in _MOVING and frames > 1,
        "has_alpha": opened.has_transparency_data,
        "icc_profile": profile_name(opened.info.get("icc_profile")),
        "orientation": still.orientation,
    }
    warnings = []
    if counted > frames:
        warnings.append(f"The picture has more than {MOST_FRAMES:,} frames; the rest was not counted.")
    if hdr is not None:
        details["hdr"] = hdr
        warnings.append(f"The picture is in HDR ({hdr}); its thumbnails only come near its colours.")
    return details, warnings


def frame_count(still: Still) -> int:
    """How many frames or pages there are; beyond ``MOST_FRAMES`` no more are counted."""
    if still.image.format == "GIF":
        return headers.gif_frames(still.path, MOST_FRAMES)
    if still.image.format == "TIFF":
        return headers.tiff_pages(still.path, MOST_FRAMES)
    return int(getattr(still.image, "n_frames", 1))


def bit_depth(still: Still) -> int:
    """Bits for each channel in the file, whatever Pillow makes of them."""
    match still.image.format:
        case "TIFF":
            bits = still.image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))  # type: ignore[attr-defined]
            return int(bits[0] if isinstance(bits, tuple) else bits)
        case "PNG":
            return headers.png_bits(still.path)
        case "AVIF":
            return headers.avif_bits(still.path)
        case "HEIF":
            return int(still.image.info.get("bit_depth", 8))
        case "JXL":
            return read_header(still.path).bits
    return 1 if still.image.mode == "1" else 8


def _hdr(still: Still) -> str | None:
    """How the picture's brightness is coded, if it goes beyond a screen's white without an ICC profile."""
    if still.image.info.get("icc_profile"):
        return None
    if still.image.format == "AVIF":
        return _HDR.get(headers.avif_transfer(still.path))
    nclx = still.image.info.get("nclx_profile") or {}
    return _HDR.get(nclx.get("transfer_characteristics", 2))
