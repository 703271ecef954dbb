"""A small world around the rows: messages in a bag, workers that hold claims, and what was seen of both.

Each move is one committed transaction of ``db.queue`` and what the process that made it would do next. The
bag knows no order, a message may be lost or copied, and a process may end between any two of its steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from db import effects, queue
from db.effects import Done
from db.models import DeadLetter, MediaItem, ProcessingJob, QueueRow
from db.models.base import is_in
from db.queue import Claimed, Effect
from db.session import Sessions
from pipeline.errors import ConflictError, DailiesError, InvalidRequestError
from pipeline.queues import LANES
from pipeline.retry import RetryPolicy
from pipeline.stages.dedupe import DedupeValue
from pipeline.states import ACTIVE
from pipeline.workflows import DISPENSABLE, StageName
from tests.factories import add_item
from tests.support import COST, LEASE, complete, expire

BYTES = "6" * 64  #: all items have the same bytes: who is the original is decided while they race


@dataclass(frozen=True)
class Message:
    row_id: UUID
    queue: str


@dataclass(frozen=True)
class Holder:
    """A pool process at work on a row. ``run``: how often the row had been started again when it claimed."""

    claim: Claimed
    worker: str
    message: Message
    run: int


@dataclass
class World:
    sessions: Sessions
    items: list[UUID] = field(default_factory=list)
    bag: list[Message] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    #: What a counter outside the fence has seen.
    effects: Counter[tuple[UUID, int]] = field(default_factory=Counter)
    runs: Counter[UUID] = field(default_factory=Counter)
    #: Faults and operators' moves that may each have left one more copy of a row's message.
    faults: Counter[UUID] = field(default_factory=Counter)
    revived: set[UUID] = field(default_factory=set)  #: jobs that the last move started again

    noticed: list[Callable[[], None]] = field(default_factory=list)  #: by the steward
    ended: set[tuple[UUID, int]] = field(default_factory=set)  #: leases, by row and token
    copied: set[tuple[UUID, datetime | None]] = field(default_factory=set)
    won: set[tuple[UUID, datetime]] = field(default_factory=set)  #: copies, by what was seen

    # What people do.

    def upload(self, workflow: str, priority: int, *, optional: bool = False) -> UUID:
        with self.sessions.begin() as session:
            item = add_item(session, sha256=BYTES, holds_hash=False)
            job = queue.enqueue(session, media_item_id=item.id, workflow=workflow, priority=priority)
            if optional:
                which = (QueueRow.job_id == job.id, is_in(QueueRow.job_type, DISPENSABLE))
                session.execute(update(QueueRow).where(*which).values(optional=True))
        self.items.append(item.id)
        return job.id

    def cancel(self, job_id: UUID) -> None:
        with self.sessions.begin() as session:
            queue.cancel_job(session, job_id, actor="ada", reason="a test")

    def retry(self, job_id: UUID, stage: StageName | None) -> None:
        """Start a job again, where that is allowed."""
        with suppress(ConflictError, InvalidRequestError), self.sessions.begin() as session:
            first = queue.retry_job(session, job_id, actor="ada", stage=stage)
            self._started_again(session, job_id, first.id)

    def redrive(self, *, from_start: bool) -> None:
        """Redrive the newest open dead letter."""
        open_letters = select(DeadLetter.id).where(
            DeadLetter.resolved_at.is_(None), DeadLetter.media_item_id.in_(self.items)
        )
        with suppress(ConflictError), self.sessions.begin() as session:
            letter_id = session.scalar(open_letters.order_by(DeadLetter.id.desc()).limit(1))
            if letter_id is None:
                return
            answer = queue.redrive_letter(session, letter_id, actor="ada", from_start=from_start)
            assert isinstance(answer, queue.Redriven)
            self._started_again(session, answer.job_id, answer.row_id)

    def _started_again(self, session: Session, job_id: UUID, first: UUID) -> None:
        start = select(QueueRow.position).where(QueueRow.id == first).scalar_subquery()
        rows = select(QueueRow.id).where(QueueRow.job_id == job_id, QueueRow.position >= start)
        again = session.scalars(rows).all()
        self._untold(session, first)
        self.revived.add(job_id)
        self.runs.update(again)
        self.faults.update(again)

    def change_priority(self, job_id: UUID, priority: int, send: str) -> None:
        """Move a job to another lane; the message in the old one becomes a copy."""
        with suppress(ConflictError), self.sessions.begin() as session:
            queue.change_priority(session, job_id, priority, actor="ada")
            self.faults.update(session.scalars(select(QueueRow.id).where(QueueRow.job_id == job_id)))
        with self.sessions() as session:
            due = queue.due_row(session, job_id)
        if due is not None:
            self.publish(due, send)

    def pause(self, lane: str) -> None:
        with self.sessions.begin() as session:
            queue.pause_lane(session, lane, actor="ada")

    def resume(self, lane: str) -> None:
        with self.sessions.begin() as session:
            queue.resume_lane(session, lane)

    # What workers do.

    def deliver(self, message: Message, worker: str) -> None:
        """Receive a message, ask its row, and do what it says."""
        self.bag.remove(message)
        with self.sessions.begin() as session:
            answer = queue.claim(session, message.row_id, worker=worker, lease=LEASE)
            if isinstance(answer, queue.Paused):
                self._untold(session, message.row_id)
        match answer:
            case Claimed():
                self.tokens.append(answer.token)
                self.holders.append(Holder(answer, worker, message, self.runs[message.row_id]))
            case queue.Final(successor) if successor is not None:
                self.publish(successor)
            case queue.NotDue(published_at=seen) | queue.Leased(published_at=seen):
                self.publish_copy(message.row_id, seen)
            case _:
                pass

    def succeed(self, holder: Holder, *, dies: bool = False) -> None:
        """Settle a success, then publish the successor, then acknowledge; ``dies`` after the first."""
        called: list[UUID] = []
        with self.sessions.begin() as session:
            outcome = complete(session, holder.claim, _effect_of(holder.claim, called))
        settled = isinstance(outcome, queue.Settled)
        assert len(called) == settled, "an effect runs exactly where the fence held"
        if isinstance(outcome, queue.Settled):
            row_id = holder.claim.row_id
            assert holder.run == self.runs[row_id], "what was claimed before a retry settles after it"
            self.effects[row_id, holder.run] += 1
            if outcome.successor is not None and not dies:
                self.publish(outcome.successor)
        self._leave(holder, acknowledges=not dies)

    def fail(self, holder: Holder, error: DailiesError, policy: RetryPolicy, *, dies: bool = False) -> None:
        with self.sessions.begin() as session:
            outcome = queue.fail(session, holder.claim, error, policy, cost=COST)
            if isinstance(outcome, queue.Again):
                self._untold(session, holder.claim.row_id)
        if isinstance(outcome, queue.Again) and not dies:
            self.publish(holder.claim.row_id)
        if isinstance(outcome, queue.GaveUp) and outcome.successor is not None and not dies:
            self.publish(outcome.successor)
        self._leave(holder, acknowledges=not dies)

    def _untold(self, session: Session, row_id: UUID) -> None:
        row = session.get_one(QueueRow, row_id, populate_existing=True)
        assert row.published_at is None, "a row whose message is used up says that nobody was told of it"

    def renew(self, holder: Holder) -> None:
        claim = holder.claim
        with self.sessions.begin() as session:
            if queue.heartbeat(session, claim.row_id, claim.token, lease=LEASE):
                self.ended.discard((claim.row_id, claim.token))

    def die(self, holder: Holder) -> None:
        """The whole worker ends without a word: its message comes back when its visibility ends."""
        self._leave(holder, acknowledges=False)

    def die_watched(self, holder: Holder, *, crash: bool) -> None:
        """A pool process ends and its parent gives the row back; the message is acknowledged."""
        row_id = holder.claim.row_id
        with self.sessions.begin() as session:
            held = queue.heartbeat(session, row_id, holder.claim.token, lease=None)
            released = queue.release_held(
                session, row_id, holder.worker, crash=crash, error=("CHILD_DIED", "It was killed.")
            )
        assert released == held, "a parent gives back what its child held, and nothing else"
        self._leave(holder, acknowledges=True)
        if released:
            self.publish(row_id)

    def _leave(self, holder: Holder, *, acknowledges: bool) -> None:
        self.holders.remove(holder)
        if not acknowledges:
            self.faults[holder.message.row_id] += 1
            self.bag.append(holder.message)

    # What dispatch does.

    def publish(self, row_id: UUID, send: str = "sent") -> None:
        """Win the ticket, commit, send. ``send``: what becomes of the message."""
        with self.sessions.begin() as session:
            ticket = queue.win_ticket(session, row_id)
        self._send(ticket, send)

    def publish_copy(self, row_id: UUID, seen: datetime | None, send: str = "sent") -> None:
        with self.sessions.begin() as session:
            ticket = queue.win_copy(session, row_id, seen=seen)
        if ticket is not None and seen is not None:
            assert (row_id, seen) not in self.won, "two have won the right to the same copy"
            self.won.add((row_id, seen))
        self._send(ticket, send)

    def _send(self, ticket: queue.Ticket | None, send: str) -> None:
        if ticket is None:
            return
        if send != "lost":  # a send that fails may have arrived all the same
            self.bag.append(Message(ticket.row_id, ticket.queue))
        if send in {"refused", "unsure"}:
            with self.sessions.begin() as session:
                queue.give_back(session, ticket)
        if send == "refused":
            self.bag.pop()
        if send == "unsure":
            self.faults[ticket.row_id] += 1

    # What the steward does: it looks, and acts later on what it saw, which may have changed since.

    def look(self) -> None:
        """Notice leases that have ended, rows that nobody was told of, messages that seem lost."""
        with self.sessions() as session:
            for row_id, token in queue.expired(session):
                self.noticed.append(partial(self._release, row_id, token))
            for row_id in queue.unpublished(session, horizon=queue.SQS_MAX_DELAY):
                self.noticed.append(partial(self.publish, row_id))
            for lane in LANES:
                lost = queue.overtaken(session, lane, margin=timedelta(), by=1)
                if not any(message.queue == lane for message in self.bag):
                    lost += queue.waiting_since(session, lane, wait=timedelta())
                for row_id, seen in lost:
                    self.noticed.append(partial(self._publish_again, row_id, seen))

    def act(self, notice: Callable[[], None]) -> None:
        self.noticed.remove(notice)
        notice()

    def _release(self, row_id: UUID, token: int) -> None:
        with self.sessions.begin() as session:
            if queue.release_expired(session, row_id, token):
                self.faults[row_id] += 1
                assert (row_id, token) in self.ended, "a lease that was renewed is nobody's to take"

    def _publish_again(self, row_id: UUID, seen: datetime | None) -> None:
        """One copy for all who saw the same ``published_at``: the message may be there after all."""
        if (row_id, seen) not in self.copied:
            self.copied.add((row_id, seen))
            self.faults[row_id] += 1
        self.publish_copy(row_id, seen)

    def publish_due(self, send: str = "sent") -> None:
        with self.sessions() as session:
            found = queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)
        for row_id in found:
            self.publish(row_id, send)

    def give_up_on(self, message: Message) -> None:
        """SQS moves a message to its dead-letter queue, where the steward finds it."""
        self.bag.remove(message)
        with self.sessions.begin() as session:
            assert queue.charge_undelivered(session, message.row_id)
            token = session.get_one(QueueRow, message.row_id).token
        if token is not None and token > max(self.tokens, default=0):
            self.tokens.append(token)

    # What nobody does.

    def lease_ends(self, row_id: UUID) -> None:
        """The holder, if it lives, was away for longer than its lease."""
        with self.sessions.begin() as session:
            row = session.get_one(QueueRow, row_id, with_for_update=True)
            if row.lease_expires_at is not None and row.token is not None:
                expire(session, row_id)
                self.ended.add((row_id, row.token))

    def time_passes(self) -> None:
        """Every wait is over: retries are due, delayed messages are visible.

        What is over already stays as it is, so that a slow machine sees the same as a fast one.
        """
        now = func.clock_timestamp()
        mine = select(ProcessingJob.id).where(ProcessingJob.media_item_id.in_(self.items))
        waits = (QueueRow.job_id.in_(mine), is_in(QueueRow.status, ACTIVE))
        with self.sessions.begin() as session:
            session.execute(
                update(QueueRow).where(*waits, QueueRow.available_at > now).values(available_at=now)
            )
            session.execute(
                update(QueueRow).where(*waits, QueueRow.published_at > now).values(published_at=now)
            )

    def lose(self, message: Message) -> None:
        self.bag.remove(message)

    def copy(self, message: Message) -> None:
        self.bag.append(message)
        self.faults[message.row_id] += 1

    def forget(self) -> None:
        """Take every trace of this world out of the tables."""
        with self.sessions.begin() as session:
            session.execute(delete(MediaItem).where(MediaItem.id.in_(self.items)))
        for lane in LANES:
            self.resume(lane)


def _effect_of(claim: Claimed, called: list[UUID]) -> Callable[[Session], Effect]:
    """Dedupe has its real effect, which links, ends and promotes jobs; the others only count."""

    def effect(session: Session) -> Effect:
        called.append(claim.row_id)
        if claim.job_type != StageName.DEDUPE:
            return Effect()
        return effects.apply(session, StageName.DEDUPE, Done(claim.asset, DedupeValue(sha256=BYTES)))

    return effect
