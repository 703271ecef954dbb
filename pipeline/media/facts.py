"""What a picture says of itself, by EXIF, XMP and IPTC together. docs/metadata.md has the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.media.exif import IPTC, PHOTOSHOP, XMP, Directories, raw_profile, read_directories, told_by_exif
from pipeline.media.image import Still
from pipeline.media.iptc import DIGEST, IIM, changed_since, resources, told_by_iptc
from pipeline.media.motion import motion_photo
from pipeline.media.told import Gps, Told
from pipeline.media.when import choose
from pipeline.media.xmp import Values, XmpError, read_packet, told_by_xmp

_DEEPEST, _HIGHEST = -11_000, 1_000_000  # metres: a trench of the sea, an orbit
#: What people write, and who tells it best, by the Metadata Working Group's guidelines 2.0. "written" is XMP,
#: then IPTC; the other way round if the IPTC was changed by a program that left the XMP as it was.
_RULE: dict[str, tuple[str, ...]] = {
    "rating": ("xmp", "exif"),
    "label": ("xmp",),
    "title": ("written", "exif"),
    "headline": ("written",),
    "description": ("exif", "written"),
    "keywords": ("written", "exif"),
    "people": ("xmp",),
    "creator": ("exif", "written"),
    "credit": ("written",),
    "copyright": ("exif", "written"),
    "location": ("written",),
    "content_identifier": ("exif",),
}
_SEARCHED = ("title", "headline", "description", "keywords", "people", "creator", "credit", "copyright")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a picture; None and empty where nobody says. ``details`` is JSON."""

    captured_at: datetime | None = (
        None  #: in UTC where ``details["captured_at_offset"]`` is None: nobody said
    )
    gps: Gps | None = None  #: latitude, longitude in degrees, north and east positive
    title: str | None = None
    text: str = ""  #: what people wrote, for the search
    details: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sources:
    exif: Told
    xmp: Told
    iptc: Told
    values: Values  # of the XMP
    iptc_is_newer: bool


def read_facts(still: Still, path: Path) -> Facts:
    """What the picture ``still``, opened from ``path``, says of itself. Never raises for what it contains.

    Its warnings begin with those of ``still``. Asked before or after the pixels are decoded.
    """
    notes = list(still.warnings)
    sources = _read(still, path, notes)
    motion, warning = motion_photo(path, sources.values)
    notes += [warning] if warning else []
    found = merge(sources.exif, sources.xmp, sources.iptc, iptc_is_newer=sources.iptc_is_newer)
    details = found.details | ({"motion_photo": motion} if motion else {})
    return facts_of(details, found.captured_at, found.gps, (*notes, *found.warnings))


def merge(exif: Told, xmp: Told, iptc: Told, *, iptc_is_newer: bool = False) -> Facts:
    """What the three sources tell together, by the rule."""
    told = {"exif": exif, "xmp": xmp, "iptc": iptc}
    written = ("iptc", "xmp") if iptc_is_newer else ("xmp", "iptc")
    captured = choose((*exif.dates, *xmp.dates, *iptc.dates))
    place = exif if exif.gps or not xmp.gps else xmp
    height = place.altitude if place.altitude is not None and _DEEPEST <= place.altitude <= _HIGHEST else None
    details: dict[str, Any] = {**captured.details(), "altitude_m": height}
    groups = {
        "camera": xmp.camera | exif.camera,
        "exposure": xmp.exposure | exif.exposure,
        "exif": exif.texts,
    }
    details |= {name: group for name, group in groups.items() if group}
    for name, order in _RULE.items():
        for source in [one for part in order for one in (written if part == "written" else (part,))]:
            if name in told[source].fields:
                details[name] = told[source].fields[name]
                break
    warnings = (*exif.warnings, *xmp.warnings, *iptc.warnings, *captured.warnings)
    return facts_of(details, captured.at, place.gps, warnings)


def facts_of(
    details: dict[str, Any], captured_at: datetime | None, gps: Gps | None, warnings: Iterable[str] = ()
) -> Facts:
    """The facts with ``details``, from which title and text follow; each warning once."""
    unique = tuple(dict.fromkeys(warnings))
    return Facts(captured_at, gps, details.get("title"), searchable(details), details, unique)


def searchable(details: Mapping[str, Any]) -> str:
    """What people wrote into ``details``, a line each."""
    lines: list[str] = []
    for name in _SEARCHED:
        value = details.get(name)
        lines += [", ".join(value) if isinstance(value, list) else value] if value else []
    lines += [", ".join(details["location"].values())] if details.get("location") else []
    return "\n".join(dict.fromkeys((*lines, *details.get("exif", {}).values())))


def _read(still: Still, path: Path, notes: list[str]) -> _Sources:
    directories = read_directories(still, path, notes)
    values = _values(still.image.info, directories, notes)
    blocks = _blocks(still.image.info, directories)
    iim = blocks.get(IIM, b"")
    newer = changed_since(iim, blocks.get(DIGEST))
    return _Sources(told_by_exif(directories), told_by_xmp(values), told_by_iptc(iim), values, newer)


def _values(info: Mapping[Any, Any], directories: Directories, notes: list[str]) -> Values:
    packet = info.get("xmp") or directories.main.get(XMP) or raw_profile(info, "xmp")
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    if not isinstance(packet, bytes) or not packet.strip(b"\0 "):
        return Values()
    try:
        return read_packet(packet)
    except XmpError as error:
        notes.append(f"The XMP cannot be read: {error}.")
        return Values()


def _blocks(info: Mapping[Any, Any], directories: Directories) -> dict[int, bytes]:
    """IPTC's datasets and their digest, from wherever the format keeps them."""
    inside = info.get("photoshop")  # a JPEG's, which Pillow has taken apart
    if isinstance(inside, dict):
        return {key: value for key, value in inside.items() if isinstance(value, bytes)}
    found = resources(directories.main.get(PHOTOSHOP) or raw_profile(info, "iptc") or b"")
    plain = directories.main.get(IPTC)
    return found | ({IIM: plain} if plain else {})
