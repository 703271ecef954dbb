"""When a picture was taken, or a recording made: which of the dates that a file carries is taken for it.

The rule is written in docs/metadata.md, and its order is that of ``DateField``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from enum import StrEnum


class DateField(StrEnum):
    """Every date that is looked at, best first: the moment of the exposure, of digitising, of writing."""

    EXIF_ORIGINAL = "DateTimeOriginal"
    XMP_ORIGINAL = "exif:DateTimeOriginal"
    IPTC_CREATED = "iptc:DateCreated"
    PHOTOSHOP_CREATED = "photoshop:DateCreated"
    QUICKTIME_CREATED = "com.apple.quicktime.creationdate"  #: local, with its offset
    EXIF_DIGITIZED = "DateTimeDigitized"
    XMP_DIGITIZED = "exif:DateTimeDigitized"
    IPTC_DIGITIZED = "iptc:DigitalCreationDate"
    XMP_CREATED = "xmp:CreateDate"
    GPS = "GPSDateStamp"  #: in UTC, by the satellites; the time of the last fix
    EXIF_CHANGED = "DateTime"
    CONTAINER_CREATED = "creation_time"  #: of MP4, QuickTime and Matroska, in UTC
    TAG = "date"  #: of an audio file, or whatever else gives a date in a tag


@dataclass(frozen=True, slots=True)
class Candidate:
    """A date as the file has it: ``text`` is EXIF's "2024:02:29 23:59:58" or ISO 8601, whole or in part."""

    field: DateField
    text: str
    offset: str | None = None  #: "+02:00", where it stands apart from the text
    fraction: str | None = None  #: digits of the second's fraction, where they stand apart


@dataclass(frozen=True, slots=True)
class Captured:
    """The date that won; all None if there was none."""

    at: datetime | None = None  #: with its offset; in UTC where ``offset`` is None: nobody said
    source: DateField | None = None
    offset: str | None = None  #: "+02:00"
    offset_from: DateField | None = None  #: where the offset comes from, if not from the same field
    precision: str | None = (
        None  #: "year", "month", "day", "minute" or "second"; what is missing is the first
    )
    warnings: tuple[str, ...] = ()

    def details(self) -> dict[str, str | None]:
        """What the item's metadata says of it, as JSON."""
        details: dict[str, str | None] = {"captured_from": self.source, "captured_at_offset": self.offset}
        if self.offset_from is not None:
            details["captured_at_offset_from"] = self.offset_from
        if self.precision in {"year", "month", "day"}:
            details["captured_at_precision"] = self.precision
        return details


@dataclass(frozen=True, slots=True)
class _Moment:
    field: DateField
    local: datetime  # without a zone
    zone: timezone | None
    precision: str


_DATE = re.compile(
    r"(?P<year>\d{4})(?:[:/.-]?(?P<month>\d\d)(?:[:/.-]?(?P<day>\d\d)"
    r"(?:[ T]+(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r" ?(?P<offset>Z|[+-]\d\d:?\d\d)?)?)?)?(?!\d)",
    re.ASCII,
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)", re.ASCII)
_IN_UTC = frozenset({DateField.GPS, DateField.CONTAINER_CREATED})  # whatever their text leaves out
_LONGEST = 60  # characters of a date that are looked at
FIRST_YEAR = 1826  #: of the oldest photograph there is
_CLOCKS_NOT_SET = (datetime(1904, 1, 1), datetime(1970, 1, 1))  # noqa: DTZ001 - the zeros of two calendars
_AHEAD = timedelta(days=1)  # the furthest that any clock's zone is ahead of ours, and some patience

_QUARTER = timedelta(minutes=15)
_STALE = timedelta(minutes=5)  # how old the last GPS fix may be
_WEST, _EAST = timedelta(hours=-12), timedelta(hours=14)
_ODD_QUARTERS = tuple(timedelta(hours=hours, minutes=45) for hours in (5, 8, 12))  # Nepal, Eucla, Chatham


def choose(candidates: Iterable[Candidate], *, now: datetime | None = None) -> Captured:
    """The first of ``candidates`` by the rule that can be read and lies between 1826 and tomorrow.

    If it has no offset, one is borrowed: from another date of the same local second, else from the time that
    GPS gives. A date that is passed over gives a warning, unless it is blank: a clock that was never set.
    ``now`` is the present, for tests.
    """
    order = list(DateField)
    latest = (now or datetime.now(UTC)).astimezone(UTC) + _AHEAD
    notes: list[str] = []
    moments: list[_Moment] = []
    for candidate in sorted(candidates, key=lambda one: order.index(one.field)):
        moment = _read(candidate, latest, notes)
        if moment is not None:
            moments.append(moment)
    if not moments:
        return Captured(warnings=tuple(notes))
    best = moments[0]
    zone, source = (best.zone, None) if best.zone else _borrowed(best, moments[1:])
    at = best.local.replace(tzinfo=zone or UTC)
    return Captured(at, best.field, _spelled(zone), source, best.precision, tuple(notes))


def _read(candidate: Candidate, latest: datetime, notes: list[str]) -> _Moment | None:
    text = candidate.text.strip()[:_LONGEST]
    if not text.strip(" 0:-T.Z+"):  # blanks and zeros: a camera whose clock was never set
        return None
    try:
        moment = _parse(candidate, text)
        if moment.local in _CLOCKS_NOT_SET and moment.precision == "second":
            return None
        at = moment.local.replace(tzinfo=moment.zone or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        notes.append(f"The date {candidate.field} is {text[:40]!r}, which is no date.")
        return None
    if moment.local.year < FIRST_YEAR or at > latest:
        notes.append(f"The date {candidate.field} is {text[:40]!r}, which cannot be; it was passed over.")
        return None
    return moment


def _parse(candidate: Candidate, text: str) -> _Moment:
    match = _DATE.match(text)
    if match is None:
        raise ValueError(text)
    parts = match.groupdict()
    precision = _precision(parts)
    month = 1 if precision == "year" else int(parts["month"])
    day = 1 if precision in {"year", "month"} else int(parts["day"])
    local = datetime(int(parts["year"]), month, day)  # noqa: DTZ001 - its zone is found afterwards
    zone = UTC if candidate.field in _IN_UTC else None
    if precision in {"minute", "second"}:
        digits = parts["fraction"] or candidate.fraction or ""
        micros = int(f"{digits:0<6}"[:6]) if re.fullmatch("[0-9]+", digits) else 0
        hour, minute, second = (int(parts[unit] or 0) for unit in ("hour", "minute", "second"))
        local = datetime.combine(local, time(hour, minute, second, micros))
        zone = zone_of(parts["offset"]) or zone_of(candidate.offset) or zone
    return _Moment(candidate.field, local, zone, precision)


def _precision(parts: dict[str, str | None]) -> str:
    unknown = {None, "00"}  # IPTC writes 19890000 for some day of 1989
    if parts["month"] in unknown:
        return "year"
    if parts["day"] in unknown:
        return "month"
    if parts["hour"] is None:
        return "day"
    return "second" if parts["second"] else "minute"


def _borrowed(best: _Moment, others: Iterable[_Moment]) -> tuple[timezone | None, DateField | None]:
    """The zone that ``best`` was told in, by what the others say, and which of them says so."""
    if best.precision != "second":
        return None, None
    second = best.local.replace(microsecond=0)
    others = list(others)
    for other in others:
        # UTC says nothing of the clock on the wall: programs write it where they know of no zone.
        if other.zone not in {None, UTC} and other.local.replace(microsecond=0) == second:
            return other.zone, other.field
    for other in others:
        if other.field is DateField.GPS and (zone := _zone_between(second, other.local)):
            return zone, DateField.GPS
    return None, None


def _zone_between(local: datetime, utc: datetime) -> timezone | None:
    """The zone of the clock that shows ``local`` at ``utc``, a few minutes aside; None if there is none."""
    apart = local - utc
    delta = round(apart / _QUARTER) * _QUARTER
    usual = delta % (2 * _QUARTER) == timedelta(0) or delta in _ODD_QUARTERS
    if abs(apart - delta) > _STALE or not usual or not _WEST <= delta <= _EAST:
        return None
    return timezone(delta)


def zone_of(text: str | None) -> timezone | None:
    """The zone of an offset as dates write it: "+02:00", "-0330" or "Z"; None if it is none."""
    if text in {"Z", "z"}:
        return UTC
    match = _OFFSET.fullmatch((text or "").strip())
    if match is None:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if delta >= timedelta(days=1):
        return None
    return timezone(delta if match[1] == "+" else -delta)


def _spelled(zone: timezone | None) -> str | None:
    return None if zone is None else zone.tzname(None).removeprefix("UTC") or "+00:00"
