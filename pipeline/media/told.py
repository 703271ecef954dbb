"""What one source of metadata tells of a picture, and how its values are cleaned before they are stored."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.media.when import Candidate

Gps = tuple[float, float]

LONGEST_TEXT = 1000  #: characters kept of one value
LONGEST_DESCRIPTION = 10_000
MOST_VALUES = 200  #: keywords, creators or people kept
_LONGEST_WORD = 200  # characters of one of them


@dataclass(frozen=True, slots=True)
class Told:
    """What EXIF, XMP or IPTC tells; empty where it says nothing. ``fields`` has keys of docs/metadata.md."""

    dates: tuple[Candidate, ...] = ()
    gps: Gps | None = None  #: latitude, longitude in degrees, north and east positive
    altitude: float | None = None  #: metres above the sea
    camera: dict[str, str] = field(default_factory=dict)
    exposure: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  #: as EXIF has them
    fields: dict[str, Any] = field(default_factory=dict)  #: of what people write: rating, keywords, title ...
    warnings: tuple[str, ...] = ()


def text_of(value: Any, longest: int = LONGEST_TEXT) -> str | None:
    """``value``, text or bytes in UTF-8 or Latin-1, as text that PostgreSQL's JSON takes; None if empty.

    It ends at the first NUL; control marks and lone surrogates go.
    """
    if isinstance(value, bytes):
        value = value[: 4 * longest].split(b"\0", 1)[0]
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            # Cut in the middle of a letter, it is still UTF-8.
            whole = error.reason == "unexpected end of data" and len(value) == 4 * longest
            value = value[: error.start].decode() if whole else value.decode("latin-1")
    if not isinstance(value, str):
        return None
    kept = (mark for mark in value.split("\0", 1)[0][: 2 * longest] if mark.isprintable() or mark in "\n\t")
    return "".join(kept).strip()[:longest].rstrip() or None


def words_of(values: Iterable[Any]) -> list[str]:
    """Each of ``values`` once, as clean text, in their order, at most ``MOST_VALUES``."""
    found: dict[str, None] = {}
    for value in values:
        if word := text_of(value, _LONGEST_WORD):
            found[word] = None
        if len(found) == MOST_VALUES:
            break
    return list(found)


def number_of(value: Any) -> float | None:
    """``value``, or the first of several, as a finite number; None for whatever is no number.

    Text may be a fraction, as XMP writes it: "28/10".
    """
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    if isinstance(value, str):
        value, slash, divisor = value[:_LONGEST_WORD].partition("/")
        below = number_of(divisor) if slash else 1.0
        above = number_of(value) if slash else value
        if not below or above is None:
            return None
        value = float(above) / below if slash else above
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def rating_of(value: Any) -> int | None:
    """Stars, 0 (none given) to 5, or -1 (rejected), by XMP; None for anything else."""
    number = number_of(value)
    return round(number) if number is not None and -1 <= number <= 5 else None  # noqa: PLR2004 - stars


def position(latitude: float | None, longitude: float | None, notes: list[str]) -> Gps | None:
    """The two as a position; None, and a note, if they are none."""
    # Cameras without a fix write zeros; nobody photographs 0, 0 often enough to mind.
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        notes.append("The GPS position is empty or impossible and was left out.")
        return None
    return latitude, longitude


def signed_degrees(parts: Iterable[float | None], letter: str, signs: str) -> float | None:
    """Degrees, minutes and seconds as signed degrees; ``signs`` are the letters of plus and minus.

    None for what lies off the globe: ``signs`` is "NS", to 90 degrees, or "EW", to 180.
    """
    degrees, minutes, seconds = parts
    if letter not in tuple(signs) or degrees is None or minutes is None or seconds is None:
        return None
    if min(degrees, minutes, seconds) < 0 or max(minutes, seconds) > 60:  # noqa: PLR2004 - to the unit
        return None
    total = degrees + minutes / 60 + seconds / 3600
    if total > (90 if signs == "NS" else 180):
        return None
    return total if letter == signs[0] else -total
