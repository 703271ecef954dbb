"""Which stages follow which, for each workflow."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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

#: What the rest of an upload's chain can do without.
DISPENSABLE = frozenset({_S.METADATA, _S.THUMBNAILS})

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


class JobConfig(BaseModel):
    """What a job may ask of its stages. An unknown name is refused: a typing error would go unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quality: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None  #: of the thumbnails' JPEG


def check_config(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` as it is kept with the job. Raises InvalidRequestError for what no stage reads."""
    try:
        return JobConfig.model_validate(config).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(JobConfig.model_fields)
        raise InvalidRequestError(
            f"config.{name}: {first['msg'].lower()}; a job takes {known}.", field=f"config.{name}"
        ) from None
