"""What a file is, from its bytes; its name and the uploader's word only give warnings."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.errors import PermanentStageError
from pipeline.media.image import open_image

IMAGE = "image"
#: Pillow's name of each format that is read, and its MIME type
MIME_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
}
READABLE = "JPEG, PNG, WebP, GIF and TIFF pictures"

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((magic, "TIFF") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),  # the last two are BigTIFF
)
_HEAD = 12  # bytes that decide
_DNG_VERSION, _SUBFILE_TYPE, _SUB_IFDS, _REDUCED = 0xC612, 0x00FE, 0x014A, 1

# An instance of its own: the module's functions read the machine's tables, and would differ between machines.
_NAMES = mimetypes.MimeTypes()
_NAMES.add_type("image/webp", ".webp")
_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/tif": "image/tiff"}
_SAYS_NOTHING = {"", "application/octet-stream", "binary/octet-stream"}


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What the bytes say."""

    mime_type: str
    kind: str
    warnings: tuple[str, ...] = ()


def sniff(path: Path, *, pixel_limit: int, name: str = "", content_type: str | None = None) -> Sniffed:
    """Find the type of the file at ``path``; ``name`` and ``content_type`` are what the uploader called it.

    The first bytes choose the decoder, and opening the header with it decides.

    Raises:
        PermanentStageError: UNSUPPORTED_TYPE, or what ``open_image`` raises.
    """
    with path.open("rb") as file:
        name_of_format = format_of(file.read(_HEAD))
    if name_of_format is None:
        raise _unsupported("The file is of no type that is read here, whatever its name says")
    with open_image(path, (name_of_format,), pixel_limit=pixel_limit) as image:
        if _is_camera_raw(image):
            raise _unsupported("This is a camera's raw file")
    mime_type = MIME_TYPES[name_of_format]
    return Sniffed(mime_type, IMAGE, tuple(_disagreements(mime_type, name, content_type)))


def format_of(head: bytes) -> str | None:
    """Pillow's name of the format that a file starting with ``head`` (12 bytes or more) claims to be."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[8:10] == b"CR" and head.startswith(b"II*\0"):  # Canon's CR2, a TIFF in all but content
        return None
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def _unsupported(why: str) -> PermanentStageError:
    return PermanentStageError(f"{why}; Dailies reads {READABLE}.", code="UNSUPPORTED_TYPE")


def _is_camera_raw(image: Image.Image) -> bool:
    """Whether a TIFF is the shell of a raw file (DNG, NEF, ARW ...) around a small preview."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return False
    return _DNG_VERSION in tags or (_SUB_IFDS in tags and tags.get(_SUBFILE_TYPE) == _REDUCED)


def _disagreements(mime_type: str, name: str, content_type: str | None) -> list[str]:
    by_name = _NAMES.guess_type(name, strict=True)[0]
    said = (content_type or "").partition(";")[0].strip().lower()
    said = _ALIASES.get(said, said)
    warnings = []
    if by_name is not None and by_name != mime_type:
        warnings.append(f"The name says {by_name}, the bytes are {mime_type}.")
    if said not in _SAYS_NOTHING and said != mime_type:
        warnings.append(f"The upload was declared as {said}, the bytes are {mime_type}.")
    return warnings
