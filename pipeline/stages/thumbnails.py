"""The three JPEGs that stand for the file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.errors import NoPictureError, PermanentStageError
from pipeline.media import pictures
from pipeline.media.variants import make_variants
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


def run(asset: Asset, ctx: Context) -> StageOutput:
    """Make the variants in ``ctx.workdir``. ``ctx.config["quality"]`` (1 to 100) goes before the setting.

    A file that has no picture gets none, and a warning.

    Raises:
        PermanentStageError: INVALID_CONFIG, or what the file's reader raises.
    """
    file, quality = ctx.require_file(), _quality(ctx)
    warnings: tuple[str, ...] = ()
    primary = pictures.take_kept(ctx.primary) if ctx.primary else None
    if primary is None:
        try:
            primary, warnings = pictures.primary_of(file.path, asset.mime_type, ctx.limits)
        except NoPictureError as error:
            return StageOutput(ThumbnailsValue(variants=()), warnings=(error.message,))
    made = make_variants(primary, ctx.workdir, sha256=file.sha256, quality=quality)
    infos = tuple(
        VariantInfo(variant=one.name, width=one.width, height=one.height, bytes=one.size) for one in made
    )
    renditions = (
        Rendition(one.name, one.path, "image/jpeg", "jpg", one.width, one.height, one.fingerprint)
        for one in made
    )
    return StageOutput(ThumbnailsValue(variants=infos), tuple(renditions), warnings)


def _quality(ctx: Context) -> int:
    quality = ctx.config.get("quality", ctx.jpeg_quality)
    if type(quality) is not int or not 1 <= quality <= 100:  # noqa: PLR2004 - JPEG's own scale; True is no quality
        raise PermanentStageError(
            f"The job's config has quality {quality!r}; give a whole number from 1 to 100.",
            code="INVALID_CONFIG",
        )
    return quality


STAGE = Stage(StageName.THUMBNAILS, run, ThumbnailsValue, version=pictures.VERSION, decodes=True)
