"""The three JPEGs that stand for a media item."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from pipeline.media import lanczos
from pipeline.media.pictures import PRIMARY, VERSION
from pipeline.media.reader import Size

#: Largest first: each is made from the one before.
VARIANTS: dict[str, Size] = {"primary": PRIMARY, "medium": (640, 360), "small": (320, 180)}


@dataclass(frozen=True, slots=True)
class Variant:
    """One picture made, as a JPEG."""

    name: str
    path: Path
    width: int
    height: int
    size: int  #: bytes
    fingerprint: str


def make_variants(primary: Image.Image, folder: Path, *, sha256: str, quality: int) -> list[Variant]:
    """Write every variant into ``folder``, largest first; ``primary`` is ``pictures.Pictures.primary``.

    No profile is embedded, since what has none is sRGB, and no EXIF: a thumbnail tells no position.
    ``sha256`` is the source file's, in hexadecimal; ``quality`` is JPEG's, 1 to 100.
    """
    picture, made = primary, []
    for name, size in VARIANTS.items():
        if picture.size != size:
            picture = lanczos.resize(picture, size)
        made.append(_write(picture, folder, name, sha256, quality))
    return made


def fingerprint(sha256: str, name: str, quality: int) -> str:
    """What a variant is made of: source bytes, parameters and processor version, as 16 hexadecimal digits."""
    made_of = [sha256, name, VARIANTS[name], "cover", "jpeg", quality, VERSION]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _write(picture: Image.Image, folder: Path, name: str, sha256: str, quality: int) -> Variant:
    path = folder / f"{name}.jpg"
    picture.info = {}  # Pillow would write the source's comment and density into the JPEG
    body = BytesIO()
    picture.save(body, "JPEG", quality=quality)
    path.write_bytes(body.getbuffer())  # Pillow itself does not see that a full disk takes only a part
    mark = fingerprint(sha256, name, quality)
    return Variant(name, path, picture.width, picture.height, path.stat().st_size, mark)
