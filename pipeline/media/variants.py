"""The three pictures that stand for a media item."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import Image

from pipeline.media.colour import on_white
from pipeline.media.image import open_still
from pipeline.media.resize import LANCZOS, Size, cover

#: Largest first: each is made from the one before.
VARIANTS: dict[str, Size] = {"primary": (1280, 720), "medium": (640, 360), "small": (320, 180)}
VERSION = f"1+pillow-{PIL.__version__}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One picture made, as a JPEG."""

    name: str
    path: Path
    width: int
    height: int
    size: int  #: bytes
    fingerprint: str


def make_variants(
    source: Path, folder: Path, *, sha256: str, quality: int, pixel_limit: int
) -> tuple[list[Variant], str | None]:
    """Write every variant of the picture ``source`` into ``folder``.

    The middle of the first frame, upright, filling the size exactly (a smaller picture is enlarged), alpha on
    white, in sRGB. No profile is embedded, since what has none is sRGB, and no EXIF: a thumbnail tells no
    position. ``sha256`` is the source's, in hexadecimal; ``quality`` is JPEG's, 1 to 100.

    Returns the variants, largest first, and a warning or None.
    Raises what ``open_still`` and ``Still.load`` raise.
    """
    first, *smaller = VARIANTS
    with open_still(source, pixel_limit=pixel_limit) as still:
        picture, warning = cover(still, VARIANTS[first])
    picture = on_white(picture)
    variants = [_write(picture, folder, first, sha256, quality)]
    for name in smaller:
        picture = picture.resize(VARIANTS[name], LANCZOS)
        variants.append(_write(picture, folder, name, sha256, quality))
    return variants, warning


def fingerprint(sha256: str, name: str, quality: int) -> str:
    """What a variant is made of: source bytes, parameters and processor version, as 16 hexadecimal digits."""
    made_of = [sha256, name, VARIANTS[name], "cover", "jpeg", quality, VERSION]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _write(picture: Image.Image, folder: Path, name: str, sha256: str, quality: int) -> Variant:
    path = folder / f"{name}.jpg"
    picture.info = {}  # Pillow would write the source's comment and density into the JPEG
    picture.save(path, "JPEG", quality=quality)
    mark = fingerprint(sha256, name, quality)
    return Variant(name, path, picture.width, picture.height, path.stat().st_size, mark)
