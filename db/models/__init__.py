"""The tables, by subject."""

from db.models.audit import AuditEntry
from db.models.base import Base
from db.models.media import MediaItem, SearchDocument, Thumbnail
from db.models.queue import (
    TOKEN,
    Attempt,
    DeadLetter,
    DeadLetterReason,
    Outcome,
    PausedLane,
    ProcessingJob,
    QueueRow,
    Resolution,
    StewardMark,
    Worker,
    WorkerState,
)
from db.models.similar import PerceptualHash

__all__ = [
    "TOKEN",
    "Attempt",
    "AuditEntry",
    "Base",
    "DeadLetter",
    "DeadLetterReason",
    "MediaItem",
    "Outcome",
    "PausedLane",
    "PerceptualHash",
    "ProcessingJob",
    "QueueRow",
    "Resolution",
    "SearchDocument",
    "StewardMark",
    "Thumbnail",
    "Worker",
    "WorkerState",
]
