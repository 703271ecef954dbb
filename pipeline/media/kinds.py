"""What is read: every type of file, its kind, and the names its files go by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a file is to the people who work with it; ``media_items.kind``."""

    IMAGE = "image"
    VECTOR = "vector"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"
    SIDECAR = "sidecar"  #: what is told of another file: XMP


@dataclass(frozen=True, slots=True)
class FileType:
    """A type of file. The bytes decide which one a file is; the extensions only serve warnings."""

    name: str  #: as people say it
    mime_type: str
    kind: Kind
    extensions: tuple[str, ...]  #: with their dot, the usual one first
    aliases: tuple[str, ...] = ()  #: other MIME types that mean it


_K = Kind
JPEG = FileType(
    "JPEG", "image/jpeg", _K.IMAGE, (".jpg", ".jpeg", ".jpe", ".mpo"), ("image/jpg", "image/pjpeg")
)
PNG = FileType("PNG", "image/png", _K.IMAGE, (".png", ".apng"), ("image/apng", "image/x-png"))
WEBP = FileType("WebP", "image/webp", _K.IMAGE, (".webp",))
GIF = FileType("GIF", "image/gif", _K.IMAGE, (".gif",))
TIFF = FileType("TIFF", "image/tiff", _K.IMAGE, (".tif", ".tiff"), ("image/tif",))
BMP = FileType("BMP", "image/bmp", _K.IMAGE, (".bmp", ".dib"), ("image/x-ms-bmp", "image/x-bmp"))
HEIC = FileType(
    "HEIC", "image/heic", _K.IMAGE, (".heic", ".heif", ".hif"), ("image/heif", "image/heic-sequence")
)
AVIF = FileType("AVIF", "image/avif", _K.IMAGE, (".avif",), ("image/avif-sequence",))
JXL = FileType("JPEG XL", "image/jxl", _K.IMAGE, (".jxl",))
DNG = FileType("DNG", "image/x-adobe-dng", _K.IMAGE, (".dng",), ("image/dng",))
CR2 = FileType("Canon CR2", "image/x-canon-cr2", _K.IMAGE, (".cr2",))
NEF = FileType("Nikon NEF", "image/x-nikon-nef", _K.IMAGE, (".nef",))
ARW = FileType("Sony ARW", "image/x-sony-arw", _K.IMAGE, (".arw",))
RAF = FileType("Fujifilm RAF", "image/x-fuji-raf", _K.IMAGE, (".raf",))
RW2 = FileType("Panasonic RW2", "image/x-panasonic-rw2", _K.IMAGE, (".rw2",))
SVG = FileType("SVG", "image/svg+xml", _K.VECTOR, (".svg",))
MP4 = FileType("MP4", "video/mp4", _K.VIDEO, (".mp4", ".m4v"), ("video/x-m4v",))
MOV = FileType("QuickTime", "video/quicktime", _K.VIDEO, (".mov", ".qt"))
MKV = FileType("Matroska", "video/x-matroska", _K.VIDEO, (".mkv",), ("video/matroska",))
WEBM = FileType("WebM", "video/webm", _K.VIDEO, (".webm",))
AVI = FileType("AVI", "video/x-msvideo", _K.VIDEO, (".avi",), ("video/avi", "video/msvideo", "video/vnd.avi"))
MP3 = FileType("MP3", "audio/mpeg", _K.AUDIO, (".mp3",), ("audio/mp3",))
M4A = FileType("M4A", "audio/mp4", _K.AUDIO, (".m4a", ".m4b"), ("audio/x-m4a", "audio/m4a"))
AAC = FileType("AAC", "audio/aac", _K.AUDIO, (".aac",), ("audio/x-aac", "audio/aacp"))
WAV = FileType("WAV", "audio/wav", _K.AUDIO, (".wav",), ("audio/x-wav", "audio/wave", "audio/vnd.wave"))
FLAC = FileType("FLAC", "audio/flac", _K.AUDIO, (".flac",), ("audio/x-flac",))
OGG = FileType("Ogg", "audio/ogg", _K.AUDIO, (".ogg", ".oga", ".opus"), ("audio/vorbis", "audio/opus"))
PDF = FileType("PDF", "application/pdf", _K.DOCUMENT, (".pdf",), ("application/x-pdf",))
TEXT = FileType("plain text", "text/plain", _K.DOCUMENT, (".txt", ".text", ".md"), ("text/markdown",))
FOUNTAIN = FileType("Fountain", "text/x-fountain", _K.DOCUMENT, (".fountain", ".spmd"), ("text/plain",))
XMP = FileType("XMP", "application/rdf+xml", _K.SIDECAR, (".xmp",), ("application/xml", "text/xml"))

RAW = (DNG, CR2, NEF, ARW, RAF, RW2)
TYPES = (
    JPEG, PNG, WEBP, GIF, TIFF, BMP, HEIC, AVIF, JXL, *RAW, SVG, MP4, MOV, MKV, WEBM, AVI, MP3, M4A, AAC, WAV,
    FLAC, OGG, PDF, TEXT, FOUNTAIN, XMP,
)  # fmt: skip
BY_MIME_TYPE = {one.mime_type: one for one in TYPES}
BY_EXTENSION = {extension: one for one in TYPES for extension in one.extensions}
