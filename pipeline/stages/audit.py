"""The summary of a success: what is known of the asset when its job is done."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName

SUMMARISED = frozenset(
    {
        "bucket", "key", "version_id", "size", "kind", "mime_type", "sha256",
        "width", "height", "captured_at", "gps", "entity_type", "entity_id",
    }
)  # fmt: skip


class AuditValue(BaseModel):
    """The details of the audit entry."""

    model_config = ConfigDict(frozen=True)

    summary: dict[str, Any]  #: JSON


def run(asset: Asset, _ctx: Context) -> StageOutput:
    """Summarise the asset as the stages before left it."""
    return StageOutput(AuditValue(summary=asset.model_dump(mode="json", include=set(SUMMARISED))))


STAGE = Stage(StageName.AUDIT, run, AuditValue, version="1", needs_file=False)
