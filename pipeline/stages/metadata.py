"""What a picture is: dimensions, orientation, EXIF with place and time, colour, and its ThumbHash."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import PIL
from pydantic import BaseModel, ConfigDict

from pipeline.media.colour import profile_name
from pipeline.media.exif import ExifFacts, read_exif
from pipeline.media.image import Still, bit_depth, frame_count, open_still
from pipeline.media.placeholder import LONGEST_SIDE, thumbhash
from pipeline.media.resize import inside
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName


class MetadataValue(BaseModel):
    """What the metadata stage found."""

    model_config = ConfigDict(frozen=True)

    width: int  #: pixels, orientation applied
    height: int
    orientation: int  #: as the file says, 1 to 8
    captured_at: datetime | None  #: UTC where ``details["captured_at_offset"]`` is null: EXIF did not say
    gps: tuple[float, float] | None  #: latitude, longitude in degrees
    thumbhash: str  #: base64
    duration_seconds: float | None = None
    details: dict[str, Any]  #: JSON


def run(_asset: Asset, ctx: Context) -> StageOutput:
    """Read the picture and decode it whole, at a small scale.

    Raises:
        PermanentStageError: IMAGE_TOO_LARGE, TRUNCATED_IMAGE or CORRUPT_IMAGE.
    """
    file = ctx.require_file()
    with open_still(file.path, pixel_limit=ctx.pixel_limit) as still:
        exif = read_exif(still)
        details = _details(still, exif)
        width, height = still.size
        small, colour_warning = inside(still, LONGEST_SIDE)
    value = MetadataValue(
        width=width,
        height=height,
        orientation=still.orientation,
        captured_at=exif.captured_at,
        gps=exif.gps,
        thumbhash=thumbhash(small),
        details=details,
    )
    return StageOutput(value, warnings=exif.warnings + ((colour_warning,) if colour_warning else ()))


def _details(still: Still, exif: ExifFacts) -> dict[str, Any]:
    image = still.image
    details: dict[str, Any] = {
        "format": image.format,
        "mode": image.mode,
        "bits": bit_depth(still),
        "frames": frame_count(still),
        "has_alpha": image.has_transparency_data,
        "icc_profile": profile_name(image.info.get("icc_profile")),
        "orientation": still.orientation,
        "captured_from": exif.captured_from,
        "captured_at_offset": exif.captured_at_offset,
        "altitude_m": exif.altitude,
    }
    groups = {"camera": exif.camera, "exposure": exif.exposure, "exif": exif.texts}
    return details | {name: group for name, group in groups.items() if group}


STAGE = Stage(StageName.METADATA, run, version=f"1+pillow-{PIL.__version__}")
