"""What IPTC-IIM says: the captions of press agencies, in JPEGs and TIFFs. Source: IPTC-NAA IIM 4.2."""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from dataclasses import replace
from typing import Any

from pipeline.media.told import LONGEST_DESCRIPTION, MOST_VALUES, Told, text_of, words_of
from pipeline.media.when import Candidate, DateField

IIM, DIGEST = (
    0x0404,
    0x0425,
)  #: Photoshop's image resources: the datasets, and their MD5 at the last writing of XMP
_MARK, _APPLICATION = 0x1C, 2
_EXTENDED = 0x8000  # a length of four bytes or more follows
_MOST_DATASETS = 4096
_TITLE, _KEYWORD, _HEADLINE, _CAPTION, _BYLINE, _CREDIT, _COPYRIGHT = 5, 25, 105, 120, 80, 110, 116
_LOCATION = {"sublocation": 92, "city": 90, "state": 95, "country": 101, "country_code": 100}
_DATES = ((DateField.IPTC_CREATED, 55, 60), (DateField.IPTC_DIGITIZED, 62, 63))
_DAY_DIGITS, _CLOCK_DIGITS = 8, 6


def told_by_iptc(data: bytes) -> Told:
    """What the datasets in ``data`` tell. What follows a broken one is left out."""
    sets = _datasets(data)
    texts = {name: _first(sets, number) for name, number in _LOCATION.items()}
    location = {name: text for name, text in texts.items() if text}
    fields: dict[str, Any] = {
        "title": _first(sets, _TITLE),
        "headline": _first(sets, _HEADLINE),
        "description": _first(sets, _CAPTION, LONGEST_DESCRIPTION),
        "keywords": words_of(sets[_KEYWORD]),
        "creator": words_of(sets[_BYLINE]),
        "credit": _first(sets, _CREDIT),
        "copyright": _first(sets, _COPYRIGHT),
        "location": location,
    }
    dates = (_date(name, _first(sets, day), _first(sets, clock)) for name, day, clock in _DATES)
    return Told(
        dates=tuple(date for date in dates if date is not None),
        fields={name: value for name, value in fields.items() if value},
    )


def changed_since(data: bytes, digest: bytes | None) -> bool:
    """Whether ``data`` was written after the XMP beside it, by the MD5 that was noted then."""
    versions = (data, data.rstrip(b"\0"))  # TIFF pads it to 32-bit words
    return digest is not None and digest not in {
        hashlib.md5(one, usedforsecurity=False).digest() for one in versions
    }


def resources(data: bytes) -> dict[int, bytes]:
    """The datasets and their digest among Photoshop's image resources, by number."""
    found: dict[int, bytes] = {}
    at = 0
    while data[at : at + 4] == b"8BIM" and len(data) >= at + 7:
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        name = (data[at + 6] + 2) & ~1  # with its length byte, padded to an even number
        at += 6 + name
        size = int.from_bytes(data[at : at + 4], "big")
        if number in {IIM, DIGEST}:
            found.setdefault(number, data[at + 4 : at + 4 + size])
        at += 4 + size + (size & 1)
    return found


def _datasets(data: bytes) -> dict[int, list[bytes]]:
    """The datasets of the application record, by number."""
    found: defaultdict[int, list[bytes]] = defaultdict(list)
    at = 0
    for _ in range(_MOST_DATASETS):
        if len(data) < at + 5 or data[at] != _MARK:
            break
        record, number, size = struct.unpack_from(">BBH", data, at + 1)
        at += 5
        if size & _EXTENDED:
            wide = size & ~_EXTENDED
            size = int.from_bytes(data[at : at + wide][:8], "big")
            at += wide
        if record == _APPLICATION and len(found[number]) < MOST_VALUES:
            found[number].append(data[at : at + size])
        at += size
    return found


def _first(sets: dict[int, list[bytes]], number: int, longest: int = 1000) -> str | None:
    return text_of(sets[number][0], longest) if sets.get(number) else None


def _date(name: DateField, day: str | None, clock: str | None) -> Candidate | None:
    """CCYYMMDD and HHMMSS+HHMM as one date."""
    if day is None or len(day) < _DAY_DIGITS or not day[:_DAY_DIGITS].isdigit():
        return Candidate(name, day) if day else None
    date = Candidate(name, f"{day[:4]}-{day[4:6]}-{day[6:8]}")
    if clock is None or not clock[:_CLOCK_DIGITS].isdigit() or len(clock) < _CLOCK_DIGITS:
        return date
    text = f"{date.text}T{clock[:2]}:{clock[2:4]}:{clock[4:6]}"
    offset = clock[_CLOCK_DIGITS:]
    # A zone is demanded, and Adobe's programs write UTC where they know of none.
    return replace(date, text=text, offset=None if offset in {"", "+0000", "-0000"} else offset)
