"""What a file says of itself, and what its picture looks like: facts, text, perceptual hash, placeholder."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.errors import NoPictureError
from pipeline.media import pictures
from pipeline.media.kinds import Kind
from pipeline.media.pdq import pdq
from pipeline.media.placeholder import LONGEST_SIDE, thumbhash
from pipeline.media.readers import reader_of
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName

#: Pages of text and waveforms all look alike.
COMPARED = frozenset({Kind.IMAGE, Kind.VECTOR, Kind.VIDEO})

MOST_TEXT = 300_000  #: bytes


class MetadataValue(BaseModel):
    """What the metadata stage found; None where the file says nothing."""

    model_config = ConfigDict(frozen=True)

    width: int | None = None  #: pixels, orientation applied
    height: int | None = None
    orientation: int = 1  #: as the file says, 1 to 8
    captured_at: datetime | None = (
        None  #: UTC where ``details["captured_at_offset"]`` is null: it did not say
    )
    gps: tuple[float, float] | None = None  #: latitude, longitude in degrees
    duration_seconds: float | None = None
    title: str | None = None
    text: str = ""  #: what is written inside, for the search
    thumbhash: str | None = None  #: base64
    phash: str | None = None  #: PDQ, 64 hexadecimal digits
    phash_quality: int | None = None  #: PDQ's own, 0 to 100
    details: dict[str, Any]  #: JSON


def run(asset: Asset, ctx: Context) -> StageOutput:
    """Read what the file says, then decode its picture once, for all who want one.

    Raises:
        PermanentStageError: what the file's reader raises; see docs/errors.md.
    """
    file = ctx.require_file()
    said = reader_of(asset.mime_type).describe(file.path, ctx.limits)
    warnings, seen = list(said.warnings), {}
    try:
        found = pictures.of_file(file.path, asset.mime_type, ctx.limits)
    except NoPictureError as error:
        warnings.append(error.message)
    else:
        if ctx.primary is not None:
            pictures.keep(found.primary, ctx.primary)
        warnings += found.warnings
        seen = _seen(asset.kind, found)
    value = MetadataValue(
        width=said.width,
        height=said.height,
        orientation=said.orientation,
        captured_at=said.captured_at,
        gps=said.gps,
        duration_seconds=said.duration_seconds,
        title=said.title,
        text=fitting(said.text),
        details=said.details,
        **seen,
    )
    return StageOutput(value, warnings=tuple(dict.fromkeys(warnings)))


def fitting(text: str) -> str:
    """As much of ``text`` as fits a tsvector of 1 MB: a word with a hyphen is in it whole and in parts."""
    return text.encode()[:MOST_TEXT].decode(errors="ignore")


def _seen(kind: str | None, found: pictures.Pictures) -> dict[str, Any]:
    small = found.whole.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    placeholder = {"thumbhash": thumbhash(small)}
    if kind not in COMPARED:
        return placeholder
    hashed = pdq(found.whole)
    return placeholder | {"phash": hashed.hex(), "phash_quality": hashed.quality}


STAGE = Stage(StageName.METADATA, run, MetadataValue, version=pictures.VERSION, decodes=True)
