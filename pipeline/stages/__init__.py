"""The stages, each one module; a new one is a module and a line here."""

from __future__ import annotations

from pipeline.stages import audit, dedupe, index, ingest, metadata, thumbnails
from pipeline.stages.base import Stage
from pipeline.workflows import StageName

STAGES: dict[StageName, Stage] = {
    stage.name: stage
    for stage in (
        ingest.STAGE,
        dedupe.STAGE,
        metadata.STAGE,
        thumbnails.STAGE,
        index.STAGE,
        audit.STAGE,
    )
}
