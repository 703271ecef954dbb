"""Accept the file or refuse it: its size, its type from the bytes, and whether its prefix takes that kind."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from pipeline.errors import PermanentStageError
from pipeline.keys import check_size, parse_key, policy_for
from pipeline.media.sniff import sniff
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName


class IngestValue(BaseModel):
    """What the bytes and the key say."""

    model_config = ConfigDict(frozen=True)

    mime_type: str
    kind: str
    size: int  #: bytes
    sha256: str  #: hexadecimal
    content_type: str | None = None  #: as the uploader said
    entity_type: str
    entity_id: UUID | None


def run(asset: Asset, ctx: Context) -> StageOutput:
    """Sniff the file.

    Raises:
        PermanentStageError: EMPTY_FILE, FILE_TOO_LARGE, KIND_NOT_ALLOWED, or what ``sniff`` raises.
    """
    file = ctx.require_file()
    check_size(asset.key, file.size, ctx.size_limit)
    parsed = parse_key(asset.key)
    declared = file.content_type or asset.content_type
    sniffed = sniff(file.path, name=parsed.filename, content_type=declared)
    _check_kind(asset.key, sniffed.kind)
    value = IngestValue(
        mime_type=sniffed.mime_type,
        kind=sniffed.kind,
        size=file.size,
        sha256=file.sha256,
        content_type=declared,
        entity_type=parsed.entity_type,
        entity_id=parsed.entity_id,
    )
    return StageOutput(value, warnings=sniffed.warnings)


def _check_kind(key: str, kind: str) -> None:
    policy = policy_for(key)
    if policy.kinds is not None and kind not in policy.kinds:
        raise PermanentStageError(
            f"{policy.prefix} takes files of the kinds {', '.join(sorted(policy.kinds))}, and this one is of "
            f"the kind {kind}; upload it below another prefix.",
            code="KIND_NOT_ALLOWED",
        )


STAGE = Stage(StageName.INGEST, run, IngestValue, version="2", decodes=True)
