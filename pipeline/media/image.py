"""Opening pictures under limits, and turning what decoders raise into errors that say what is wrong."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from pipeline.errors import InfrastructureError, PermanentStageError

# Ours is the one limit on pixels: a setting, checked from the header. Pillow's is a warning up to twice its
# value, and would refuse pictures that the setting allows.
Image.MAX_IMAGE_PIXELS = None

#: What Pillow raises on bytes it cannot digest. Not Exception: Celery's soft time limit is one.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF")  # a multi-picture JPEG opens as MPO through "JPEG"

_T = Image.Transpose
#: What makes pixels upright, for each value of EXIF's Orientation (EXIF 3.0, section 4.6.5.1)
UPRIGHT = {
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_270,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})
_PNG_BIT_DEPTH = 24  # where it stands: after signature, length, name, width and height (PNG 3rd ed., 11.2.1)


@dataclass(frozen=True, slots=True)
class Still:
    """An open picture: the first frame, its pixels not decoded yet if the format allows."""

    image: ImageFile
    path: Path
    orientation: int  #: as the file says, 1 to 8
    to_apply: int  #: the orientation that the decoded pixels still need: Pillow turns TIFFs itself
    warnings: tuple[str, ...]  #: about its header and EXIF

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, orientation applied. Ask before ``draft``, which shrinks the image."""
        width, height = self.image.size
        return (height, width) if self.to_apply in SIDEWAYS else (width, height)

    def load(self) -> None:
        """Decode the pixels. Raises PermanentStageError TRUNCATED_IMAGE or CORRUPT_IMAGE."""
        with decoding(self.path):
            self.image.load()


@contextmanager
def open_image(
    path: Path, formats: tuple[str, ...] = FORMATS, *, pixel_limit: int, notes: list[str] | None = None
) -> Iterator[ImageFile]:
    """Open the header of the picture at ``path``; no pixel is decoded. Pillow's warnings go to ``notes``.

    Raises:
        PermanentStageError: IMAGE_TOO_LARGE, TRUNCATED_IMAGE or CORRUPT_IMAGE.
        InfrastructureError: LOCAL_FILE_UNREADABLE.
    """
    with decoding(path, notes):
        image = Image.open(path, formats=formats)
    with image:
        width, height = image.size
        if width * height > pixel_limit:
            raise PermanentStageError(
                f"The picture has {width} x {height} pixels ({width * height / 1e6:.1f} megapixels), and the "
                f"limit is {pixel_limit / 1e6:.1f}; upload a smaller one.",
                code="IMAGE_TOO_LARGE",
            )
        yield image


@contextmanager
def open_still(path: Path, *, pixel_limit: int) -> Iterator[Still]:
    """Open the picture at ``path`` and find out which way up it is. Raises what ``open_image`` raises."""
    notes: list[str] = []
    with open_image(path, pixel_limit=pixel_limit, notes=notes) as image:
        if image.format == "PNG":
            with decoding(path):
                image.load()  # EXIF may stand behind the pixels, and Pillow decodes them to get there
        found: Any = None
        with exif_trouble(notes):
            exif = image.getexif()
            found = exif.get(ExifTags.Base.Orientation)
            if image.info.get("exif") and not exif:
                notes.append("The EXIF cannot be read.")  # Pillow swallowed why
        orientation = found if found in UPRIGHT else 1
        to_apply = 1 if image.format == "TIFF" else orientation
        yield Still(image, path, orientation, to_apply, tuple(notes))


def frame_count(still: Still) -> int:
    """How many frames or pages there are. Raises PermanentStageError where they cannot be counted."""
    with decoding(still.path):
        return int(getattr(still.image, "n_frames", 1))


def bit_depth(still: Still) -> int:
    """Bits for each channel in the file, whatever Pillow makes of them."""
    tags = getattr(still.image, "tag_v2", None)
    if tags is not None:
        bits = tags.get(ExifTags.Base.BitsPerSample, (1,))
        return int(bits[0] if isinstance(bits, tuple) else bits)
    if still.image.format == "PNG":
        with still.path.open("rb") as file:
            return file.read(_PNG_BIT_DEPTH + 1)[_PNG_BIT_DEPTH]
    return 8


@contextmanager
def decoding(path: Path, notes: list[str] | None = None) -> Iterator[None]:
    """Turn what a decoder raises into a stage error; what it warns of goes to ``notes``, or nowhere."""
    try:
        with _listening([] if notes is None else notes):
            yield
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InfrastructureError(
                f"The local copy cannot be read ({error.strerror}); it is fetched again.",
                code="LOCAL_FILE_UNREADABLE",
            ) from error
        if "truncated" in str(error).lower() or _ends_early(path):
            raise PermanentStageError(
                "The picture's data ends too early, or is damaged on the way; upload it again, whole.",
                code="TRUNCATED_IMAGE",
            ) from error
        raise PermanentStageError(
            f"The picture is damaged: the decoder says {str(error) or type(error).__name__!r}.",
            code="CORRUPT_IMAGE",
        ) from error


@contextmanager
def exif_trouble(notes: list[str]) -> Iterator[None]:
    """Add to ``notes`` what Pillow warns of and raises on malformed EXIF, which fails no picture."""
    with _listening(notes):
        try:
            yield
        except DECODER_ERRORS as error:
            notes.append(f"The EXIF cannot be read: {error}.")


@contextmanager
def _listening(notes: list[str]) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    notes.extend(" ".join(str(warning.message).split()) for warning in said)


def _ends_early(path: Path) -> bool:
    """Whether the container is shorter than it says: asked only of a file that a decoder has refused."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(-min(size, 16), 2)
        tail = file.read()
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if head.startswith(b"GIF8"):
        return not tail.endswith(b";")
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 > size
    return head.startswith((b"II", b"MM")) and _tiff_ends_early(path, head, size)


def _tiff_ends_early(path: Path, head: bytes, size: int) -> bool:
    """Whether the directory of a TIFF, or the strips or tiles it names, lie past the end."""
    order = "<" if head.startswith(b"II") else ">"
    if len(head) < len("II*.0000") or struct.unpack(f"{order}I", head[4:8])[0] + 2 > size:
        return True
    try:
        with _listening([]), Image.open(path, formats=("TIFF",)) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]  # Pillow's own attribute of TIFFs
            starts = tags.get(ExifTags.Base.StripOffsets) or tags.get(ExifTags.Base.TileOffsets) or ()
            counts = tags.get(ExifTags.Base.StripByteCounts) or tags.get(ExifTags.Base.TileByteCounts) or ()
    except DECODER_ERRORS:
        return False
    return any(start + count > size for start, count in zip(starts, counts, strict=False))
