"""Dead letters: what was given up on, or was never ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query

from api.dependencies import Resources, ResourcesDep, decode_cursor, encode_cursor
from api.envelope import CursorMetadata
from api.errors import ANY_OPERATION, CONFLICT, NOT_FOUND
from api.routes.control import bulk, last_decided, publish_handled
from api.schemas.control import ActorHeader, Refusal
from api.schemas.dlq import (
    DeadLetter,
    DeadLetterAnswer,
    DeadLetterGroup,
    DeadLetterGroupsAnswer,
    DeadLettersPage,
    DeadLetterSummary,
    GroupsQuery,
    LettersQuery,
    PurgeQuery,
    Redrive,
    RedrivenLetter,
    RedrivenLetters,
)
from db import letters, queue
from db.session import guarded
from tasks.control import Handled, redrive

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1/dlq", tags=["dlq"], responses=ANY_OPERATION)


@router.get("", summary="List dead letters")
def list_dead_letters(query: Annotated[LettersQuery, Query()], held: ResourcesDep) -> DeadLettersPage:
    """What was given up on, newest first; the open ones unless another `state` is asked for."""
    with guarded(), held.sessions() as session:
        found = letters.list_letters(
            session, query.filter(), limit=query.limit + 1, before=decode_cursor("dlq", query.cursor)
        )
    page = [DeadLetterSummary.told(letter, key) for letter, key in found[: query.limit]]
    following = encode_cursor("dlq", page[-1].id) if len(found) > query.limit else None
    return DeadLettersPage(data=page, metadata=CursorMetadata(limit=query.limit, next_cursor=following))


@router.get("/groups", summary="Dead letters by stage and error code")
def group_dead_letters(query: Annotated[GroupsQuery, Query()], held: ResourcesDep) -> DeadLetterGroupsAnswer:
    """How many were given up on for which reason, with the newest of each group as a sample."""
    with guarded(), held.sessions() as session:
        found = letters.group_letters(session, query.filter())
    return DeadLetterGroupsAnswer(
        data=[
            DeadLetterGroup.model_validate(
                {
                    "stage": group.stage,
                    "error_code": group.error_code,
                    "reason": group.reason,
                    "count": group.count,
                    "first_at": group.first_at,
                    "last_at": group.last_at,
                    "sample_id": group.sample.id,
                    "sample_message": group.sample.error_message,
                }
            )
            for group in found
        ]
    )


@router.post("/redrive", summary="Redrive dead letters")
def redrive_dead_letters(what: Redrive, held: ResourcesDep, x_actor: ActorHeader = None) -> RedrivenLetters:
    """Give what was given up on another chance, at most `limit` in a call. Try `dry_run` first.

    The job of a letter starts again with new budgets, from the stage that failed or from its start; an S3
    event goes to the listener again. Each is decided for itself: what cannot be redriven is told in its entry
    (NOT_FOUND, ALREADY_RESOLVED, JOB_ACTIVE, JOB_COMPLETED, JOB_GONE, ITEM_DELETED, ITEM_BUSY,
    FOREIGN_MESSAGE).
    """
    after = decode_cursor("dlq/redrive", what.cursor)
    ids = _asked_for(what, after, held)
    actor, dry_run, from_start = what.by(x_actor), what.dry_run, what.from_ == "start"
    handled = redrive(
        held.sessions,
        held.settings,
        ids,
        actor=actor,
        reason=what.reason,
        from_start=from_start,
        dry_run=dry_run,
    )
    publish_handled(held, handled)
    last = last_decided(handled, after)
    remaining = _left(what, ids, handled, last, held)
    log.info("dead_letters_redriven", actor=actor, reason=what.reason, dry_run=dry_run, count=len(handled))
    return RedrivenLetters(
        data=_redriven(handled, _keys(ids, held)),
        metadata=bulk(
            None if what.ids else "dlq/redrive", last, handled, dry_run=dry_run, remaining=remaining
        ),
    )


def _redriven(handled: Sequence[Handled], keys: Mapping[UUID, str]) -> list[RedrivenLetter]:
    return [
        RedrivenLetter(
            dead_letter_id=one.id,
            job_id=one.job_id,
            key=keys.get(one.id),
            from_stage=one.stage,
            refused=Refusal.of(one.error),
        )
        for one in handled
    ]


def _asked_for(what: Redrive, after: UUID | None, held: Resources) -> Sequence[UUID]:
    if what.ids is not None:
        return list(dict.fromkeys(what.ids))
    with guarded(), held.sessions() as session:
        return letters.matching(session, what.filter(), after=after, limit=what.limit)


def _left(
    what: Redrive, ids: Sequence[UUID], handled: Sequence[Handled], last: UUID | None, held: Resources
) -> int:
    if what.ids is not None:
        return len(ids) - (ids.index(last) + 1 if last else 0)
    if not handled:
        return 0
    with guarded(), held.sessions() as session:
        return letters.count_matching(session, what.filter(), after=last)


def _keys(ids: Sequence[UUID], held: Resources) -> dict[UUID, str]:
    with guarded(), held.sessions() as session:
        return letters.keys_of(session, ids)


@router.get("/{dead_letter_id}", summary="One dead letter", responses=NOT_FOUND)
def get_dead_letter(dead_letter_id: UUID, held: ResourcesDep) -> DeadLetterAnswer:
    """The letter, with the message where it was never ours."""
    return DeadLetterAnswer(data=_told(held, dead_letter_id))


@router.delete("/{dead_letter_id}", summary="Purge a dead letter", responses={**NOT_FOUND, **CONFLICT})
def purge_dead_letter(
    dead_letter_id: UUID,
    query: Annotated[PurgeQuery, Query()],
    held: ResourcesDep,
    x_actor: ActorHeader = None,
) -> DeadLetterAnswer:
    """Say that nobody has a use for it. It is open no more, stays readable as `purged`, and goes by age."""
    actor = query.by(x_actor)
    with guarded(), held.sessions.begin() as session:
        queue.purge_letter(session, dead_letter_id, actor=actor, reason=query.reason)
    log.info("dead_letter_purged", actor=actor, reason=query.reason)
    return DeadLetterAnswer(data=_told(held, dead_letter_id))


def _told(held: Resources, letter_id: UUID) -> DeadLetter:
    with guarded(), held.sessions() as session:
        letter, key = letters.get_letter(session, letter_id)
    return DeadLetter.told(letter, key)
