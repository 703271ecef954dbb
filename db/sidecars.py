"""Sidecars and the files that they tell of, joined in whichever order they come.

A file's metadata takes in what its sidecar is known to say when it settles; a sidecar that settles later, or
is removed, starts its files' metadata again. Both lock the folder, so that neither misses the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import queue
from db.models import MediaItem, QueueRow
from pipeline.errors import ConflictError, NotFoundError
from pipeline.media.facts import Facts
from pipeline.media.kinds import Kind
from pipeline.media.sidecar import overlay, sidecar_keys, sidecar_targets
from pipeline.stages.base import Asset
from pipeline.stages.metadata import MetadataValue
from pipeline.states import FINAL
from pipeline.workflows import StageName, WorkflowType

ACTOR = "sidecar"


def join(session: Session, asset: Asset, value: MetadataValue) -> MetadataValue:
    """``value`` with what the file's sidecar says, if there is one that has been read."""
    keys = sidecar_keys(asset.key)
    if asset.kind != Kind.IMAGE or not keys:
        return value
    _lock(session, asset.bucket, asset.key)
    found = {item.key: item for item in _living(session, asset.bucket, keys) if item.kind == Kind.SIDECAR}
    sidecar = next((found[key] for key in keys if key in found and found[key].details), None)
    if sidecar is None:
        return value
    known = sidecar.latitude is not None and sidecar.longitude is not None
    gps = (sidecar.latitude, sidecar.longitude) if known else None
    said = Facts(sidecar.captured_at, gps, details=sidecar.details)  # type: ignore[arg-type]  # both are known
    alone = Facts(value.captured_at, value.gps, value.title, value.text, dict(value.details))
    joined = overlay(alone, said)
    return value.model_copy(
        update={
            "captured_at": joined.captured_at,
            "gps": joined.gps,
            "title": joined.title,
            "text": joined.text,
            "details": joined.details,
        }
    )


def tell(session: Session, bucket: str, key: str) -> bool:
    """Start the metadata of the files again that the sidecar ``key`` tells of; the steward publishes.

    Returns False where one of them is being read again just now and has read its old sidecar already.
    """
    _lock(session, bucket, key)
    told = True
    for item in _living(session, bucket, sidecar_targets(key)):
        if item.kind != Kind.IMAGE or not item.details or item.duplicate_of_id is not None:
            continue  # not read yet: its own metadata stage will look for sidecars
        try:
            with session.begin_nested():
                queue.enqueue(
                    session, media_item_id=item.id, workflow=WorkflowType.REINDEX, requested_by=ACTOR
                )
        except NotFoundError:
            pass  # deleted meanwhile
        except ConflictError:
            told = told and _is_still_to_read(session, item)
    return told


def _is_still_to_read(session: Session, item: MediaItem) -> bool:
    """Whether the item's job that is under way has its metadata stage before it."""
    active = queue.active_job_id(session, item.id, WorkflowType.REINDEX)
    row = select(QueueRow.status).where(QueueRow.job_id == active, QueueRow.job_type == StageName.METADATA)
    return active is None or session.scalar(row) not in FINAL


def _living(session: Session, bucket: str, keys: Sequence[str]) -> list[MediaItem]:
    wanted = (MediaItem.bucket == bucket, MediaItem.key.in_(keys), MediaItem.deleted_at.is_(None))
    return list(session.scalars(select(MediaItem).where(*wanted)))


def _lock(session: Session, bucket: str, key: str) -> None:
    folder = f"sidecars {bucket}/{key.rpartition('/')[0]}"
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(folder, 0))))
