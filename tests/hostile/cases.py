"""All cases, and what a sound file of each type comes to when it is cut."""

from __future__ import annotations

from tests.hostile import blocks, films, pictures, written
from tests.hostile.case import Case

CASES: tuple[Case, ...] = (*pictures.CASES, *blocks.CASES, *written.CASES, *films.CASES)
#: Hundredths of a file that are left of it
SHARES = tuple(range(5, 100, 5))
READ = ""  # what is left is sound, or sound enough
_PICTURE, _RAW = {"TRUNCATED_IMAGE"}, {"TRUNCATED_IMAGE", "CORRUPT_IMAGE", READ}
_FRAMES, _TEXT = {"TRUNCATED_AUDIO", "CORRUPT_AUDIO", READ}, {READ}
_VIDEO, _AUDIO = {"TRUNCATED_VIDEO"}, {"TRUNCATED_AUDIO", "CORRUPT_AUDIO"}
#: By extension, the codes that its parts may end with
CUT: dict[str, set[str]] = {
    **dict.fromkeys(("jpg", "png", "webp", "tif", "bmp", "heic", "avif", "jxl"), _PICTURE),
    "gif": {*_PICTURE, READ},  # its first frame is whole
    **dict.fromkeys(("dng", "cr2", "nef", "arw", "raf", "rw2"), _RAW),  # a preview may be whole
    "svg": {"CORRUPT_VECTOR"},
    **dict.fromkeys(("mp4", "mov", "mkv", "webm", "avi"), _VIDEO),
    **dict.fromkeys(("mp3", "m4a", "wav"), _AUDIO),
    **dict.fromkeys(("flac", "aac", "ogg"), _FRAMES),  # frames one after the other, and no end
    "pdf": {"CORRUPT_DOCUMENT"},
    "xmp": {"CORRUPT_SIDECAR", READ},  # text, before its first element
    **dict.fromkeys(("txt", "fountain"), _TEXT),
}
