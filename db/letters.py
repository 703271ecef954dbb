"""Reading dead letters. What writes them is ``db.queue``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, String, cast, func, select
from sqlalchemy.orm import Session

from db.ended import COUNTED
from db.models import DeadLetter, DeadLetterReason, MediaItem, Resolution
from pipeline.errors import NotFoundError
from pipeline.workflows import StageName


class LetterState(StrEnum):
    """Whether somebody has to look at a dead letter."""

    OPEN = "open"
    REDRIVEN = "redriven"  #: its job was started again, or its event sent again
    PURGED = "purged"  #: nobody has a use for it


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; what is None is not asked about."""

    state: LetterState | None = LetterState.OPEN
    error_code: str | None = None
    stage: StageName | None = None
    reason: DeadLetterReason | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Letters of one stage, error and reason."""

    stage: str | None
    error_code: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime
    sample: DeadLetter  #: the newest


def list_letters(
    session: Session, only: LetterFilter, *, limit: int, before: UUID | None = None
) -> Sequence[tuple[DeadLetter, str | None]]:
    """At most ``limit`` letters, each with the key of its media item, newest first, older than ``before``."""
    query = (
        select(DeadLetter, MediaItem.key)
        .outerjoin(MediaItem, MediaItem.id == DeadLetter.media_item_id)
        .where(*_conditions(only))
    )
    if before is not None:
        query = query.where(DeadLetter.id < before)
    found = session.execute(query.order_by(DeadLetter.id.desc()).limit(limit))
    return [(letter, key) for letter, key in found]


def get_letter(session: Session, letter_id: UUID) -> tuple[DeadLetter, str | None]:
    """The letter and the key of its media item. Raises NotFoundError."""
    found = session.execute(
        select(DeadLetter, MediaItem.key)
        .outerjoin(MediaItem, MediaItem.id == DeadLetter.media_item_id)
        .where(DeadLetter.id == letter_id)
    ).one_or_none()
    if found is None:
        raise NotFoundError(f"There is no dead letter {letter_id}.")
    letter, key = found
    return letter, key


def group_letters(session: Session, only: LetterFilter, *, limit: int = 200) -> list[LetterGroup]:
    """The letters by stage, error code and reason; the largest group first."""
    by = (DeadLetter.job_type, DeadLetter.error_code, DeadLetter.reason)
    newest = func.max(cast(DeadLetter.id, String))  # there is no max() of uuid
    counted = session.execute(
        select(*by, func.count(), func.min(DeadLetter.created_at), func.max(DeadLetter.created_at), newest)
        .where(*_conditions(only))
        .group_by(*by)
        .order_by(func.count().desc(), DeadLetter.error_code)
        .limit(limit)
    ).all()
    samples = session.scalars(select(DeadLetter).where(DeadLetter.id.in_([UUID(row[-1]) for row in counted])))
    by_id = {str(letter.id): letter for letter in samples}
    return [
        LetterGroup(stage, code, reason, count, first, last, by_id[sample])
        for stage, code, reason, count, first, last, sample in counted
    ]


def matching(session: Session, only: LetterFilter, *, after: UUID | None, limit: int) -> list[UUID]:
    """At most ``limit`` ids, oldest first, younger than ``after``."""
    query = select(DeadLetter.id).where(*_conditions(only, after)).order_by(DeadLetter.id).limit(limit)
    return list(session.scalars(query))


def count_matching(session: Session, only: LetterFilter, *, after: UUID | None) -> int:
    """How many letters there are younger than ``after``; above ``COUNTED`` says that there are more."""
    some = select(DeadLetter.id).where(*_conditions(only, after)).limit(COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def keys_of(session: Session, letter_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The keys of the letters' files, of those that are of a file."""
    keys = select(DeadLetter.id, MediaItem.key).join(MediaItem, MediaItem.id == DeadLetter.media_item_id)
    return dict(session.execute(keys.where(DeadLetter.id.in_(letter_ids))).all())


def count_open(session: Session) -> list[tuple[str | None, str, int]]:
    """The open letters by stage and error code."""
    found = session.execute(
        select(DeadLetter.job_type, DeadLetter.error_code, func.count())
        .where(DeadLetter.resolved_at.is_(None))
        .group_by(DeadLetter.job_type, DeadLetter.error_code)
    )
    return [(stage, code, count) for stage, code, count in found]


def _conditions(only: LetterFilter, after: UUID | None = None) -> list[ColumnElement[bool]]:
    equal = {
        DeadLetter.error_code: only.error_code,
        DeadLetter.job_type: only.stage,
        DeadLetter.reason: only.reason,
    }
    conditions = [column == value for column, value in equal.items() if value is not None]
    if only.state == LetterState.OPEN:
        conditions.append(DeadLetter.resolved_at.is_(None))
    elif only.state is not None:
        conditions.append(DeadLetter.resolution == Resolution(only.state))
    if only.since is not None:
        conditions.append(DeadLetter.created_at >= only.since)
    if only.until is not None:
        conditions.append(DeadLetter.created_at < only.until)
    if after is not None:
        conditions.append(DeadLetter.id > after)
    return conditions
