"""What EXIF says, read so that no malformed value fails a picture: it becomes a warning, or nothing.

Sources: EXIF 3.0, sections 4.6.5 (camera, exposure, dates) and 4.6.6 (GPS); for Rating and the XP texts, the
tags that Windows writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL.ExifTags import GPS, IFD, Base

from pipeline.media.ifd import IfdError, Structure
from pipeline.media.image import Still
from pipeline.media.told import (
    LONGEST_DESCRIPTION,
    Gps,
    Told,
    number_of,
    position,
    rating_of,
    signed_degrees,
    text_of,
    words_of,
)
from pipeline.media.when import Candidate, DateField

XMP, IPTC, PHOTOSHOP = 700, 33723, 34377  #: tags of a TIFF that hold what is no EXIF
LARGEST_BLOCK = 10_000_000  #: bytes looked at of each of these, and of the EXIF in other formats
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"IIU\0")  # TIFF and most raws, BigTIFF, RW2

_DATES = (
    (DateField.EXIF_ORIGINAL, Base.DateTimeOriginal, Base.OffsetTimeOriginal, Base.SubsecTimeOriginal),
    (DateField.EXIF_DIGITIZED, Base.DateTimeDigitized, Base.OffsetTimeDigitized, Base.SubsecTimeDigitized),
    (DateField.EXIF_CHANGED, Base.DateTime, Base.OffsetTime, Base.SubsecTime),
)
_CAMERA = {"make": Base.Make, "model": Base.Model, "lens_make": Base.LensMake, "lens": Base.LensModel}
_TEXTS = {
    "description": Base.ImageDescription,
    "artist": Base.Artist,
    "copyright": Base.Copyright,
    "software": Base.Software,
}
_EXPOSURE = {
    "time_seconds": Base.ExposureTime,
    "f_number": Base.FNumber,
    "iso": Base.ISOSpeedRatings,
    "bias_ev": Base.ExposureBiasValue,
    "focal_length_mm": Base.FocalLength,
    "focal_length_35mm": Base.FocalLengthIn35mmFilm,
    "flash": Base.Flash,
}
_RATING, _TITLE = 0x4746, 0xA436
_XP_TITLE, _XP_KEYWORDS = Base.XPTitle, Base.XPKeywords
_DATE_TAGS = frozenset(tag for row in _DATES for tag in row[1:])
_SHARED = {*_CAMERA.values(), *_EXPOSURE.values(), *_DATE_TAGS}  # raw files have them in either directory
_MAIN: set[int] = {*_SHARED, *_TEXTS.values(), _RATING, _XP_TITLE, _XP_KEYWORDS, XMP, IPTC, PHOTOSHOP}
_MAIN |= {IFD.Exif, IFD.GPSInfo}
_EXIF: set[int] = {*_SHARED, _TITLE, IFD.MakerNote}
_GPS = {
    GPS.GPSLatitude, GPS.GPSLatitudeRef, GPS.GPSLongitude, GPS.GPSLongitudeRef, GPS.GPSAltitude,
    GPS.GPSAltitudeRef, GPS.GPSDateStamp, GPS.GPSTimeStamp,
}  # fmt: skip
#: What cameras write as the description of every picture
_BOILERPLATE = frozenset(
    {
        "olympus digital camera", "sony dsc", "minolta digital camera", "kodak digital still camera",
        "digital camera", "exif_jpeg_picture", "exif jpeg picture", "default", "dcim", "samsung", "untitled",
    }
)  # fmt: skip
_APPLE = b"Apple iOS\0"
_APPLE_ORDER, _APPLE_DIRECTORY = 12, 14  # where its byte order and its directory stand
_APPLE_CONTENT = 0x0011

Tags = Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class Directories:
    """The tags that are wanted of the three directories of EXIF."""

    main: dict[int, Any] = field(default_factory=dict)
    exif: dict[int, Any] = field(default_factory=dict)
    gps: dict[int, Any] = field(default_factory=dict)


def read_directories(still: Still, path: Path, notes: list[str]) -> Directories:
    """Read the EXIF of ``still``, or the file at ``path`` where that is itself a TIFF structure."""
    with path.open("rb") as file:
        if file.read(4) in _TIFF_HEADS:
            file.seek(0)
            return _read(file, notes)
    block = still.image.info.get("exif") or raw_profile(still.image.info, "exif")
    if not isinstance(block, bytes) or not block:
        return Directories()
    if len(block) > LARGEST_BLOCK:
        notes.append(f"The EXIF has {len(block) / 1e6:.0f} MB, which no camera writes; it was left out.")
        return Directories()
    return _read(BytesIO(block.removeprefix(b"Exif\0\0")), notes)


def raw_profile(info: Mapping[Any, Any], name: str) -> bytes | None:
    """What ImageMagick writes into a PNG as text: a name, a length, and the bytes in hexadecimal."""
    text = info.get(f"Raw profile type {name}")
    if not isinstance(text, str) or len(text) > 2 * LARGEST_BLOCK:
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None


def _read(file: BinaryIO, notes: list[str]) -> Directories:
    found = Directories()
    try:
        structure = Structure(file)
        blocks = dict.fromkeys((XMP, IPTC, PHOTOSHOP), LARGEST_BLOCK)
        found.main.update(structure.directory(structure.first, _MAIN, blocks))
    except IfdError as error:
        notes.append(f"The EXIF cannot be read: {error}.")
        return found
    for pointer, wanted, values in ((IFD.Exif, _EXIF, found.exif), (IFD.GPSInfo, _GPS, found.gps)):
        if pointer in found.main:
            try:
                values.update(structure.directory(found.main[pointer], wanted))
            except IfdError as error:
                notes.append(f"The EXIF cannot be read: {error}.")
    return found


def told_by_exif(directories: Directories) -> Told:
    """What the tags tell."""
    notes: list[str] = []
    tags = directories.main | directories.exif
    return Told(
        dates=tuple(_dates(tags, directories.gps)),
        gps=parse_gps(directories.gps, notes),
        altitude=_altitude(directories.gps),
        camera=_texts(tags, _CAMERA),
        exposure={
            name: number
            for name, tag in _EXPOSURE.items()
            if (number := number_of(tags.get(tag))) is not None
        },
        texts=_texts(tags, _TEXTS),
        fields=_fields(tags),
        warnings=tuple(notes),
    )


def parse_gps(tags: Tags, notes: list[str]) -> Gps | None:
    """The position in ``tags`` (the GPS directory) in signed degrees; None, and a note, if it is none."""
    if GPS.GPSLatitude not in tags and GPS.GPSLongitude not in tags:
        return None
    latitude = _degrees(tags.get(GPS.GPSLatitude), tags.get(GPS.GPSLatitudeRef), "NS")
    longitude = _degrees(tags.get(GPS.GPSLongitude), tags.get(GPS.GPSLongitudeRef), "EW")
    return position(latitude, longitude, notes)


def _degrees(value: Any, reference: Any, signs: str) -> float | None:
    parts = [number_of(part) for part in value] if isinstance(value, (tuple, list)) else []
    if len(parts) != len(("degrees", "minutes", "seconds")):
        return None
    return signed_degrees(parts, (text_of(reference) or " ")[0].upper(), signs)


def _altitude(tags: Tags) -> float | None:
    metres = number_of(tags.get(GPS.GPSAltitude))
    below_sea = tags.get(GPS.GPSAltitudeRef) in {1, b"\x01"}
    return -metres if metres is not None and below_sea else metres


def _dates(tags: Tags, gps: Tags) -> list[Candidate]:
    dates = [
        Candidate(name, text, text_of(tags.get(offset)), text_of(tags.get(fraction)))
        for name, date, offset, fraction in _DATES
        if (text := text_of(tags.get(date)))
    ]
    day, clock = text_of(gps.get(GPS.GPSDateStamp)), gps.get(GPS.GPSTimeStamp)
    parts = [number_of(part) for part in clock] if isinstance(clock, (tuple, list)) else []
    if day and len(parts) == len(("hours", "minutes", "seconds")) and None not in parts:
        hours, minutes, seconds = (int(part or 0) for part in parts)
        dates.append(Candidate(DateField.GPS, f"{day[:10]} {hours:02}:{minutes:02}:{seconds:02}"))
    return dates


def _fields(tags: Tags) -> dict[str, Any]:
    description = text_of(tags.get(Base.ImageDescription), LONGEST_DESCRIPTION)
    if description and description.lower().split("\\", 1)[0] in _BOILERPLATE:
        description = None
    fields = {
        "rating": rating_of(tags.get(_RATING)),
        "title": text_of(tags.get(_TITLE)) or _wide_text(tags.get(_XP_TITLE)),
        "description": description,
        "keywords": words_of((_wide_text(tags.get(_XP_KEYWORDS)) or "").split(";")),
        "creator": words_of((text_of(tags.get(Base.Artist)) or "").split(";")),
        "copyright": text_of(tags.get(Base.Copyright)),
        "content_identifier": _apple_content(tags.get(IFD.MakerNote)),
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _apple_content(note: Any) -> str | None:
    """What joins an iPhone's picture and the film of the same moment; from Apple's maker note."""
    if not isinstance(note, bytes) or not note.startswith(_APPLE):
        return None
    order = note[_APPLE_ORDER:_APPLE_DIRECTORY]
    # Its directory counts from the note's own start, and has no header of its own: ours is put there.
    head = order + (b"\0*" if order == b"MM" else b"*\0") + bytes(4)
    try:
        found = Structure(BytesIO(head + note[len(head) :])).directory(_APPLE_DIRECTORY, {_APPLE_CONTENT})
    except IfdError:
        return None
    return text_of(found.get(_APPLE_CONTENT))


def _wide_text(value: Any) -> str | None:
    return text_of(value.decode("utf-16-le", "replace")) if isinstance(value, bytes) else None


def _texts(tags: Tags, wanted: Mapping[str, int]) -> dict[str, str]:
    return {name: text for name, tag in wanted.items() if (text := text_of(tags.get(tag)))}
