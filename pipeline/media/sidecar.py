"""XMP beside the file that it tells of: which keys belong together, and what the sidecar changes.

The rules are in docs/metadata.md.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import NoPictureError, PermanentStageError
from pipeline.media.facts import Facts, facts_of, merge
from pipeline.media.image import Still
from pipeline.media.kinds import BY_EXTENSION, TYPES, XMP, Kind
from pipeline.media.reader import Description, Limits, Size
from pipeline.media.told import Told
from pipeline.media.when import DateField, zone_of
from pipeline.media.xmp import LARGEST, XmpError, read_packet, told_by_xmp

_EXTENSION = XMP.extensions[0]
_STILLS = tuple(extension for one in TYPES if one.kind is Kind.IMAGE for extension in one.extensions)
#: What a sidecar tells better than the file: what people write, and when and where they say it was.
_WINS = (
    "rating", "label", "title", "headline", "description", "keywords", "people", "creator", "credit",
    "copyright", "location",
)  # fmt: skip
#: A sidecar's date of these kinds is a correction; another may be left over from a program's own habits.
_OF_EXPOSURE = frozenset({DateField.XMP_ORIGINAL, DateField.PHOTOSHOP_CREATED})
_OF_DATE = ("captured_from", "captured_at_offset", "captured_at_offset_from", "captured_at_precision")


def describe(path: Path, _limits: Limits) -> Description:
    """The XMP file at ``path`` as an item of its own. Raises what ``parse_sidecar`` raises."""
    facts = parse_sidecar(path)
    return Description(
        captured_at=facts.captured_at,
        gps=facts.gps,
        title=facts.title,
        text=facts.text,
        details={"format": XMP.name, **facts.details},
        warnings=facts.warnings,
    )


def picture(path: Path, limits: Limits, at_least: Size) -> AbstractContextManager[Still]:  # noqa: ARG001
    """There is none. Raises NoPictureError."""
    raise NoPictureError("A sidecar has no picture; look at the file that it tells of.")


def parse_sidecar(path: Path) -> Facts:
    """What the XMP file at ``path`` says.

    Raises:
        PermanentStageError: FILE_TOO_LARGE, or CORRUPT_SIDECAR for what is no XMP or declares entities.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise PermanentStageError(
            f"The sidecar has {size / 1e6:.1f} MB, and at most {LARGEST / 1e6:.0f} MB of XMP are read; "
            "save it without its history or masks.",
            code="FILE_TOO_LARGE",
        )
    try:
        told = told_by_xmp(read_packet(path.read_bytes()))
    except XmpError as error:
        raise PermanentStageError(
            f"The sidecar is no XMP that can be read: {error}; save it again in the program that made it.",
            code="CORRUPT_SIDECAR",
        ) from error
    return merge(Told(), told, Told())


def sidecar_targets(key: str) -> tuple[str, ...]:
    """The keys that the sidecar ``key`` may tell of: `name.jpg.xmp` of `name.jpg`, `name.xmp` of any still.

    Empty for a key that is no sidecar's. S3 tells small letters from capitals, and cameras write either: the
    stills are named with an extension in small letters and in capitals.
    """
    stem, extension = _split(key)
    if extension.lower() != _EXTENSION:
        return ()
    inner = _split(stem)[1].lower()
    if inner == _EXTENSION:
        return ()
    if inner in BY_EXTENSION:
        return (stem,)
    return tuple(f"{stem}{case}" for still in _STILLS for case in (still, still.upper()))


def sidecar_keys(key: str) -> tuple[str, ...]:
    """The keys of the sidecars that may tell of ``key``, best first: the one that exists first is taken."""
    stem, extension = _split(key)
    if extension.lower() == _EXTENSION or extension.lower() not in BY_EXTENSION:
        return ()
    names = [key]
    shared = extension in (*_STILLS, *(still.upper() for still in _STILLS))
    if shared and _split(stem)[1].lower() not in BY_EXTENSION:
        names.append(stem)
    return tuple(f"{name}{case}" for name in names for case in (_EXTENSION, _EXTENSION.upper()))


def overlay(file: Facts, sidecar: Facts) -> Facts:
    """What is known of an item, from what its ``file`` says alone and what its ``sidecar`` says.

    Camera, exposure, format and warnings stay the file's. ``details["from_sidecar"]`` names what was taken.
    """
    taken = {name: sidecar.details[name] for name in _WINS if sidecar.details.get(name) not in (None, [], {})}
    details = dict(file.details) | taken
    captured_at, gps = file.captured_at, file.gps
    names = sorted(taken)
    if sidecar.gps is not None:
        gps = sidecar.gps
        details["altitude_m"] = sidecar.details.get("altitude_m")
        names.append("gps")
    if _dates_better(sidecar, file):
        captured_at = sidecar.captured_at
        details = {name: value for name, value in details.items() if name not in _OF_DATE}
        details |= {name: sidecar.details[name] for name in _OF_DATE if name in sidecar.details}
        names.append("captured_at")
    if names:
        details["from_sidecar"] = names
    return facts_of(details, captured_at, gps, file.warnings)


def _dates_better(sidecar: Facts, file: Facts) -> bool:
    """Whether the sidecar's date is taken: unless the file has a better one, or the same with its offset."""
    if sidecar.captured_at is None or file.captured_at is None:
        return sidecar.captured_at is not None
    if sidecar.details.get("captured_from") not in _OF_EXPOSURE and _rank(file) < _rank(sidecar):
        return False
    return bool(sidecar.details.get("captured_at_offset")) or _local(sidecar) != _local(file)


def _rank(facts: Facts) -> int:
    order: list[str] = list(DateField)
    source = facts.details.get("captured_from")
    return order.index(source) if source in order else len(order)


def _local(facts: Facts) -> datetime | None:
    """The capture time on the wall's clock, to the second."""
    zone = zone_of(facts.details.get("captured_at_offset")) or UTC
    at = facts.captured_at
    return None if at is None else at.astimezone(zone).replace(tzinfo=None, microsecond=0)


def _split(key: str) -> tuple[str, str]:
    """``key`` before its extension, and the extension with its dot; a leading dot begins none."""
    folder, slash, name = key.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    return (f"{folder}{slash}{stem}", f".{extension}") if stem and dot else (key, "")
