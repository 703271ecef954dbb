"""What EXIF says, read so that no malformed value fails a picture: it becomes a warning, or nothing.

Sources: EXIF 3.0, sections 4.6.5 (camera, exposure, dates) and 4.6.6 (GPS).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL.ExifTags import GPS, IFD, Base

from pipeline.media.image import Still, exif_trouble

Tags = Mapping[int, Any]
Gps = tuple[float, float]

#: The date that wins is the first of these that can be read; with its offset and fraction of a second.
CAPTURE_DATES = (
    ("DateTimeOriginal", Base.DateTimeOriginal, Base.OffsetTimeOriginal, Base.SubsecTimeOriginal),
    ("DateTimeDigitized", Base.DateTimeDigitized, Base.OffsetTimeDigitized, Base.SubsecTimeDigitized),
    ("DateTime", Base.DateTime, Base.OffsetTime, Base.SubsecTime),
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
_DATE = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_LONGEST_TEXT = 1000  # characters kept


@dataclass(frozen=True, slots=True)
class ExifFacts:
    """What EXIF says of a picture; None and empty where it says nothing."""

    captured_at: datetime | None = None  #: in UTC where ``captured_at_offset`` is None: EXIF did not say
    captured_from: str | None = None  #: the tag's name
    captured_at_offset: str | None = None  #: "+02:00"
    gps: Gps | None = None  #: latitude, longitude in degrees, north and east positive
    altitude: float | None = None  #: metres above the sea
    camera: dict[str, str] = field(default_factory=dict)
    exposure: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_exif(still: Still) -> ExifFacts:
    """Read the EXIF of ``still``, before or after its pixels. Never raises for what the file contains."""
    notes = list(still.warnings)
    tags: dict[int, Any] = {}
    gps_tags: dict[int, Any] = {}
    with exif_trouble(notes):
        exif = still.image.getexif()
        tags.update(exif)
        tags.update(exif.get_ifd(IFD.Exif))
    with exif_trouble(notes):
        gps_tags.update(still.image.getexif().get_ifd(IFD.GPSInfo))
    captured_at, captured_from, offset = _captured(tags, notes)
    return ExifFacts(
        captured_at,
        captured_from,
        offset,
        parse_gps(gps_tags, notes),
        _altitude(gps_tags),
        _texts(tags, _CAMERA),
        {name: number for name, tag in _EXPOSURE.items() if (number := _number(tags.get(tag))) is not None},
        _texts(tags, _TEXTS),
        tuple(dict.fromkeys(notes)),
    )


def parse_gps(tags: Tags, notes: list[str]) -> Gps | None:
    """The position in ``tags`` (the GPS directory) in signed degrees; None, and a note, if it is none."""
    if GPS.GPSLatitude not in tags and GPS.GPSLongitude not in tags:
        return None
    latitude = _degrees(tags.get(GPS.GPSLatitude), tags.get(GPS.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(tags.get(GPS.GPSLongitude), tags.get(GPS.GPSLongitudeRef), "EW", 180)
    # Cameras without a fix write zeros; nobody photographs 0, 0 often enough to mind.
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        notes.append("The GPS position is empty or impossible and was left out.")
        return None
    return latitude, longitude


def _degrees(value: Any, reference: Any, signs: str, limit: int) -> float | None:
    """Degrees, minutes and seconds as signed degrees; ``signs`` are the letters of plus and minus."""
    parts = [_number(part) for part in value] if isinstance(value, (tuple, list)) else []
    letter = (_text(reference) or " ")[0].upper()
    if len(parts) != len(("degrees", "minutes", "seconds")) or letter not in signs:
        return None
    degrees, minutes, seconds = parts
    if degrees is None or minutes is None or seconds is None or min(degrees, minutes, seconds) < 0:
        return None
    total = degrees + minutes / 60 + seconds / 3600
    if total > limit or minutes > 60 or seconds > 60:  # noqa: PLR2004 - sixty to the unit
        return None
    return total if letter == signs[0] else -total


def _altitude(tags: Tags) -> float | None:
    metres = _number(tags.get(GPS.GPSAltitude))
    below_sea = tags.get(GPS.GPSAltitudeRef) in {1, b"\x01"}
    return -metres if metres is not None and below_sea else metres


def _captured(tags: Tags, notes: list[str]) -> tuple[datetime | None, str | None, str | None]:
    """The capture time, the name of the tag it is from, and its offset as text."""
    for name, date_tag, offset_tag, fraction_tag in CAPTURE_DATES:
        text = _text(tags.get(date_tag))
        if text is None or not text.strip(" 0:"):  # blanks and zeros: a camera whose clock was never set
            continue
        offset = _offset(_text(tags.get(offset_tag)))
        try:
            return _moment(text, offset, _text(tags.get(fraction_tag))), name, _spelled(offset)
        except (ValueError, OverflowError):
            notes.append(f"EXIF: {name} is {text[:40]!r}, which is no date.")
    return None, None, None


def _moment(text: str, offset: timezone | None, fraction: str | None) -> datetime:
    match = _DATE.match(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups())
    digits = fraction if fraction and re.fullmatch("[0-9]+", fraction) else "0"
    micros = int(f"{digits:0<6}"[:6])
    moment = datetime(year, month, day, hour, minute, second, micros, offset or UTC)
    moment.astimezone(UTC)  # an offset can carry the first or last day of all out of the calendar
    return moment


def _offset(text: str | None) -> timezone | None:
    if text in {"Z", "z"}:
        return UTC
    match = _OFFSET.fullmatch(text or "")
    if match is None:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if delta >= timedelta(days=1):
        return None
    return timezone(delta if match[1] == "+" else -delta)


def _spelled(offset: timezone | None) -> str | None:
    return None if offset is None else offset.tzname(None).removeprefix("UTC") or "+00:00"


def _texts(tags: Tags, wanted: Mapping[str, int]) -> dict[str, str]:
    return {name: text for name, tag in wanted.items() if (text := _text(tags.get(tag)))}


def _text(value: Any) -> str | None:
    """``value`` as text that PostgreSQL's JSON takes: no NUL, no control marks. None if nothing is left."""
    if isinstance(value, str):
        # Back to bytes: Pillow decodes as Latin-1 what most programs write in UTF-8.
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    kept = (mark for mark in text.split("\0", 1)[0] if mark.isprintable() or mark in "\n\t")
    return "".join(kept).strip()[:_LONGEST_TEXT] or None


def _number(value: Any) -> float | None:
    """``value``, or the first of several, as a finite number. None for 0/0 and whatever is no number."""
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None
