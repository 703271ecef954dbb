"""The three JPEGs that stand for the picture."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.errors import PermanentStageError
from pipeline.media.variants import VERSION, make_variants
from pipeline.stages.base import Asset, Context, Rendition, Stage, StageOutput
from pipeline.workflows import StageName


class VariantInfo(BaseModel):
    """One variant that was made."""

    model_config = ConfigDict(frozen=True)

    variant: str
    width: int  #: pixels
    height: int
    bytes: int


class ThumbnailsValue(BaseModel):
    """What the thumbnails stage made; the files themselves are the output's renditions."""

    model_config = ConfigDict(frozen=True)

    variants: tuple[VariantInfo, ...]


def run(_asset: Asset, ctx: Context) -> StageOutput:
    """Make the variants in ``ctx.workdir``. ``ctx.config["quality"]`` (1 to 100) goes before the setting.

    Raises:
        PermanentStageError: INVALID_CONFIG, or what ``make_variants`` raises.
    """
    file = ctx.require_file()
    made, warning = make_variants(
        file.path, ctx.workdir, sha256=file.sha256, quality=_quality(ctx), pixel_limit=ctx.pixel_limit
    )
    infos = [
        VariantInfo(variant=one.name, width=one.width, height=one.height, bytes=one.size) for one in made
    ]
    renditions = (
        Rendition(one.name, one.path, "image/jpeg", "jpg", one.width, one.height, one.fingerprint)
        for one in made
    )
    return StageOutput(ThumbnailsValue(variants=infos), tuple(renditions), (warning,) if warning else ())


def _quality(ctx: Context) -> int:
    quality = ctx.config.get("quality", ctx.jpeg_quality)
    if type(quality) is not int or not 1 <= quality <= 100:  # noqa: PLR2004 - JPEG's own scale; True is no quality
        raise PermanentStageError(
            f"The job's config has quality {quality!r}; give a whole number from 1 to 100.",
            code="INVALID_CONFIG",
        )
    return quality


STAGE = Stage(StageName.THUMBNAILS, run, version=VERSION)
