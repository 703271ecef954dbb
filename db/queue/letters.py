"""Dead letters: what was given up on or was never ours, and whether SQS has a copy."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.models import DeadLetter, DeadLetterReason
from db.queue.finish import LONGEST_MESSAGE
from pipeline.errors import DailiesError


def keep_foreign(session: Session, *, source: str | None, body: str, error: DailiesError) -> DeadLetter:
    """Keep a message that is not ours, with the reason, so that nothing that arrived is lost."""
    letter = DeadLetter(
        queue=source,
        reason=DeadLetterReason.NOT_OURS,
        error_code=error.code,
        error_message=error.message[:LONGEST_MESSAGE],
        body=body,
    )
    session.add(letter)
    session.flush()
    return letter


def without_copy(session: Session, *, limit: int) -> Sequence[DeadLetter]:
    """Dead letters of which SQS has no copy yet, oldest first; locked, and skipped where another has them."""
    return session.scalars(
        select(DeadLetter)
        .where(DeadLetter.dead_lettered_at.is_(None))
        .order_by(DeadLetter.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()


def mark_copied(session: Session, ids: Sequence[UUID]) -> None:
    """Say that SQS has a copy of each."""
    session.execute(
        update(DeadLetter).where(DeadLetter.id.in_(ids)).values(dead_lettered_at=func.clock_timestamp())
    )
