"""The pictures of a file that everything else is made from: one decode, however many want it.

``primary`` is the cover crop at 1280x720 from which the variants are made; ``whole`` is the uncropped picture
at 512 pixels, for the perceptual hash and the placeholder. The stage that decodes first leaves ``primary``
without loss where the next one on this machine finds it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from PIL import Image

from pipeline.media import lanczos
from pipeline.media.colour import on_white
from pipeline.media.kinds import BY_MIME_TYPE, Kind
from pipeline.media.readers import reader_of
from pipeline.media.resize import cover, cover_and_whole

if TYPE_CHECKING:
    from pipeline.media.reader import Limits, Size

PRIMARY: Size = (1280, 720)
WHOLE = 512  #: pixels, the longest side
_LIBRARIES = ("pillow", "pillow-heif", "pillow-jxl-plugin", "av", "pypdfium2", "pyvips-binary", "rawpy")
#: Of what ``primary`` looks like: the libraries that decode and resample.
VERSION = "+".join(
    [
        "2",
        *(
            f"{name}-{version(name)}"
            for name in (*_LIBRARIES, *(["cykooz-resizer"] if lanczos.IS_SIMD else []))
        ),
    ]
)


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was made of one decode."""

    primary: Image.Image  #: RGB in sRGB, upright, alpha on white, 1280x720
    whole: Image.Image  #: RGB or RGBA in sRGB, upright, no side above 512 pixels
    warnings: tuple[str, ...] = ()


def primary_of(path: Path, mime_type: str | None, limits: Limits) -> tuple[Image.Image, tuple[str, ...]]:
    """``primary`` alone, and warnings. Raises what the file's reader raises."""
    with reader_of(mime_type).picture(path, limits, PRIMARY) as still:
        primary, warning = cover(still, PRIMARY, from_top=_is_page(mime_type))
        return on_white(primary), (warning,) if warning else ()


def of_file(path: Path, mime_type: str | None, limits: Limits) -> Pictures:
    """Both pictures, of one decode. Raises what the file's reader raises."""
    with reader_of(mime_type).picture(path, limits, PRIMARY) as still:
        small, (whole, _) = cover_and_whole(still, PRIMARY, WHOLE, from_top=_is_page(mime_type))
    primary, warning = small
    return Pictures(on_white(primary), whole, (warning,) if warning else ())


def _is_page(mime_type: str | None) -> bool:
    """A page is known by its upper part."""
    return BY_MIME_TYPE[mime_type or ""].kind is Kind.DOCUMENT


def keep(primary: Image.Image, path: Path) -> None:
    """Leave ``primary`` at ``path``, whole or not at all. A full disk only costs the next one a decode."""
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_bytes(b"P6 %d %d 255\n" % primary.size + primary.tobytes())
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()


def take_kept(path: Path) -> Image.Image | None:
    """What ``keep`` left there, if it did. It is gone then: nobody else wants it."""
    try:
        with Image.open(path, formats=("PPM",)) as image:
            image.load()
            return image.copy() if image.size == PRIMARY else None
    except OSError:
        return None
    finally:
        path.unlink(missing_ok=True)


def place_beside(copy: Path) -> Path:
    """Where ``primary`` is kept beside the local copy of a file: the spool deletes either when it is full."""
    return copy.with_name(f"{copy.name}.primary-{crc32(VERSION.encode()):08x}")
