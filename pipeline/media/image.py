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

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from pipeline.errors import InfrastructureError, PermanentStageError, is_the_machines
from pipeline.media import boxes
from pipeline.media.headers import MOST_BLOCKS, PNG, is_all_header, is_all_scans, size_first
from pipeline.media.jxl import read_header

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
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")  # a multi-picture JPEG opens as MPO through "JPEG"
#: Bytes that decoding one picture may take. The process that decodes has a little more.
MEMORY = 1_800_000_000
#: Bytes a pixel that decoders take at their peak, measured with the libraries' versions of the lock file
_DECODER_BYTES = {"WEBP": 17, "AVIF": 13, "HEIF": 12, "JXL": 16}
_PLAIN_BYTES, _CONVERTED_BYTES = 6, 10  # of other formats: as they are, and converted before they are resized
_BASELINE_BYTES = (
    2  # of a JPEG, which is decoded at a smaller scale; a progressive one holds its coefficients
)

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
_PNG_PIXELS = frozenset({b"IDAT", b"fdAT", b"fcTL"})  # a large picture has thousands
_PNG_XMP = b"XML:com.adobe.xmp\0\0"  # its keyword, and that it is not compressed
_LARGEST_BLOCK = 10_000_000  # bytes of EXIF or XMP looked at
_MOST_CHUNKS = 100_000
# Pillow's own limit on what a chunk inflates to is 1 MB, less than profiles of printers and long XMP have.
PngImagePlugin.MAX_TEXT_CHUNK = _LARGEST_BLOCK


@dataclass(frozen=True, slots=True)
class Still:
    """An open picture: the first frame, its pixels not decoded yet if the format allows."""

    image: Image.Image
    path: Path
    orientation: int  #: as the file says, 1 to 8
    to_apply: int  #: the orientation that the decoded pixels still need: some decoders turn them
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
        if is_all_header(path):
            raise _overdone("metadata")
        _check_size(*size_first(path), "", 0, pixel_limit)
        image = Image.open(path, formats=formats)
    with image:
        _check_size(*image.size, image.format or "", _bytes_a_pixel(image), pixel_limit)
        if image.format in {"JPEG", "MPO"} and image.info.get("progressive") and is_all_scans(path):
            raise _overdone("scans")
        yield image


@contextmanager
def open_still(path: Path, *, pixel_limit: int, formats: tuple[str, ...] = FORMATS) -> Iterator[Still]:
    """Open the picture at ``path`` and find out which way up it is. Raises what ``open_image`` raises."""
    notes: list[str] = []
    with open_image(path, formats, pixel_limit=pixel_limit, notes=notes) as image:
        if image.format == "PNG":
            image.info.update(_behind_the_pixels(path))
        orientation, to_apply = _orientation(image, path, notes)
        yield Still(image, path, orientation, to_apply, tuple(notes))


def _orientation(image: ImageFile, path: Path, notes: list[str]) -> tuple[int, int]:
    """As the file says, and what the decoded pixels still need of it; EXIF's 1 to 8."""
    found: Any = None
    with exif_trouble(notes):
        if image.format == "JXL":
            # The codestream's own word counts, not EXIF's. Its decoder applies it, but not to a packed JPEG.
            header = read_header(path)
            if header.xmp:
                image.info["xmp"] = header.xmp
            if header.is_packed and not image.info.get("exif"):
                notes.append("EXIF and XMP are packed with Brotli, and were not read.")
            return header.orientation, header.orientation if getattr(image, "jpeg", False) else 1
        if image.format == "HEIF":
            found = image.info.get("original_orientation")
        else:
            # Not the PNG's own way, which decodes the pixels to see whether EXIF stands behind them.
            exif = Image.Image.getexif(image)
            found = exif.get(ExifTags.Base.Orientation)
            if image.info.get("exif") and not exif:
                notes.append("The EXIF cannot be read.")  # Pillow swallowed why
    orientation = found if found in UPRIGHT else 1
    return orientation, 1 if image.format in {"TIFF", "HEIF"} else orientation


def _check_size(width: int, height: int, name: str, bytes_a_pixel: int, pixel_limit: int) -> None:
    pixels, needed = width * height, width * height * bytes_a_pixel
    if pixels > pixel_limit:
        raise PermanentStageError(
            f"The picture has {width} x {height} pixels ({pixels / 1e6:.1f} megapixels), and the "
            f"limit is {pixel_limit / 1e6:.1f}; upload a smaller one.",
            code="IMAGE_TOO_LARGE",
        )
    if needed > MEMORY:
        raise PermanentStageError(
            f"The picture has {width} x {height} pixels, which in this sort of {name} take some "
            f"{needed / 1e9:.1f} GB to decode, and the limit is {MEMORY / 1e9:.1f}; upload a smaller one.",
            code="IMAGE_TOO_LARGE",
        )


def _overdone(what: str) -> PermanentStageError:
    return PermanentStageError(
        f"The picture has more {what} than any camera or program writes; save it anew.", code="CORRUPT_IMAGE"
    )


def _bytes_a_pixel(image: ImageFile) -> int:
    """What decoding and reducing takes at its peak."""
    if image.format in {"JPEG", "MPO"}:
        return 2 * len(image.getbands()) + 1 if image.info.get("progressive") else _BASELINE_BYTES
    plain = image.mode in {"1", "L", "RGB", "CMYK", "YCbCr"} and "transparency" not in image.info
    return _DECODER_BYTES.get(image.format or "", _PLAIN_BYTES if plain else _CONVERTED_BYTES)


def _behind_the_pixels(path: Path) -> dict[str, Any]:
    """EXIF and XMP that stand behind a PNG's pixels, by Pillow's names: it decodes them to get there.

    Raises PermanentStageError CORRUPT_IMAGE for more chunks than anyone writes.
    """
    found: dict[str, Any] = {}
    others = 0
    with path.open("rb") as file:
        file.seek(len(PNG))
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            others += name not in _PNG_PIXELS
            if others > MOST_BLOCKS:
                raise _overdone("metadata")
            if name not in {b"eXIf", b"iTXt"} or length > _LARGEST_BLOCK:
                if len(head) < 8 or name == b"IEND":  # noqa: PLR2004 - length and name
                    break
                file.seek(length + 4, 1)
                continue
            data = file.read(length + 4)[:length]
            if name == b"eXIf":
                found["exif"] = b"Exif\0\0" + data
            elif data.startswith(_PNG_XMP):
                found["xmp"] = data.rpartition(b"\0")[2]
    return found


@contextmanager
def decoding(path: Path, notes: list[str] | None = None) -> Iterator[None]:
    """Turn what a decoder raises into a stage error; what it warns of goes to ``notes``, or nowhere."""
    try:
        with _listening([] if notes is None else notes):
            yield
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and is_the_machines(error):
            raise InfrastructureError(
                f"The local copy cannot be read ({error.strerror}); it is fetched again.",
                code="LOCAL_FILE_UNREADABLE",
            ) from error
        if "truncated" in str(error).lower() or _ends_early(path):
            raise PermanentStageError(
                "The picture's data ends too early, or was damaged on its way; upload it again, whole.",
                code="TRUNCATED_IMAGE",
            ) from error
        said = "that it is no picture" if isinstance(error, UnidentifiedImageError) else repr(str(error))
        raise PermanentStageError(
            f"The picture is damaged: the decoder says {said}.",
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
        if head[4:8] in {b"ftyp", b"JXL "}:
            return boxes.ends_early(file, size)
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if head.startswith(b"GIF8"):
        return not tail.endswith(b";")
    if head.startswith((b"BM", b"RIFF")):
        claimed = head[2:6] if head.startswith(b"BM") else head[4:8]
        return int.from_bytes(claimed, "little") + (8 if head.startswith(b"RIFF") else 0) > size
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
