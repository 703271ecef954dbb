"""The file's SHA-256, by which the database knows a duplicate. Hashed while it was downloaded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.errors import PermanentStageError
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName


class DedupeValue(BaseModel):
    """The hash that the first holder wins."""

    model_config = ConfigDict(frozen=True)

    sha256: str  #: hexadecimal


def run(asset: Asset, ctx: Context) -> StageOutput:
    """Answer the hash. Raises PermanentStageError OBJECT_REPLACED if ingest saw other bytes."""
    sha256 = ctx.require_file().sha256
    if asset.sha256 not in {None, sha256}:
        raise PermanentStageError(
            "The object was replaced while it was being processed; its new version has a job of its own.",
            code="OBJECT_REPLACED",
        )
    return StageOutput(DedupeValue(sha256=sha256))


STAGE = Stage(StageName.DEDUPE, run, DedupeValue, version="1")
