"""Which stages follow which, for each workflow."""

from __future__ import annotations

from enum import StrEnum

from pipeline.errors import InvalidRequestError


class StageName(StrEnum):
    """The stages there are; ``job_type`` of a queue row."""

    INGEST = "ingest"
    DEDUPE = "dedupe"
    METADATA = "metadata"
    THUMBNAILS = "thumbnails"
    INDEX = "index"
    AUDIT = "audit"


class WorkflowType(StrEnum):
    """The named chains there are; ``workflow_type`` of a job."""

    INGEST = "ingest"
    THUMBNAILS = "thumbnails"
    REINDEX = "reindex"


_S = StageName
STAGES_OF: dict[WorkflowType, tuple[StageName, ...]] = {
    WorkflowType.INGEST: (_S.INGEST, _S.DEDUPE, _S.METADATA, _S.THUMBNAILS, _S.INDEX, _S.AUDIT),
    WorkflowType.THUMBNAILS: (_S.THUMBNAILS, _S.AUDIT),
    WorkflowType.REINDEX: (_S.METADATA, _S.INDEX, _S.AUDIT),
}

PRIORITY_MIN, PRIORITY_DEFAULT, PRIORITY_MAX = 1, 5, 10


def stages_of(workflow: str) -> tuple[StageName, ...]:
    """The stages of ``workflow`` in order. Raises InvalidRequestError for a name that is none."""
    try:
        return STAGES_OF[WorkflowType(workflow)]
    except ValueError:
        known = ", ".join(STAGES_OF)
        raise InvalidRequestError(
            f"There is no workflow {workflow!r}; use one of {known}.", field="workflow_type"
        ) from None
