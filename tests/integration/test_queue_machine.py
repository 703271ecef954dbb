"""Random interleavings of all that may happen to a few jobs; every promise is checked after every move.

``DAILIES_MACHINE_EXAMPLES`` and ``DAILIES_MACHINE_STEPS`` make the search longer than CI's, and a failure's
story shorter: CI tells it as it was found.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from db import queue
from db.session import Sessions
from pipeline.errors import InfrastructureError, PermanentStageError
from pipeline.retry import RetryPolicy
from pipeline.states import (
    ACTIVE,
    DUE,
    FINAL,
    JOB_ACTIVE,
    JOB_FINAL,
    JobStatus,
    TaskStatus,
    derive_job_status,
)
from pipeline.workflows import StageName, WorkflowType
from tests.queue_world import World
from tests.support import SLOW

EXAMPLES = int(os.environ.get("DAILIES_MACHINE_EXAMPLES", "40"))
STEPS = int(os.environ.get("DAILIES_MACHINE_STEPS", "40"))
PHASES = [phase for phase in Phase if phase != Phase.shrink or "DAILIES_MACHINE_EXAMPLES" in os.environ]
UPLOADS = 4
FEW = 3  #: of what people do rarely: an example should not go by with ending and starting jobs
WORKERS = ("w1", "w2", "w3")
ENDS = ("job_completed", "job_failed", "job_cancelled")
AT_WORK = DUE | {TaskStatus.PROCESSING}
BAD = PermanentStageError("The picture is truncated.")
AWAY = InfrastructureError("The bucket does not answer.")
AT_ONCE = RetryPolicy(floor=timedelta(), base=timedelta(), cap=timedelta())
IN_MINUTES = RetryPolicy(floor=timedelta(minutes=10), base=timedelta(minutes=10), cap=timedelta(minutes=10))
IN_DAYS = RetryPolicy(floor=timedelta(days=2), base=timedelta(days=2), cap=timedelta(days=2))

PRIORITIES = [2, 5, 9]
SENDS = ["sent", "sent", "lost", "refused", "unsure"]


#: All there is to know of the jobs of some items, in one answer: they are asked for after every move.
LOOK = text("""
SELECT j.id, j.status, (
    SELECT jsonb_agg(to_jsonb(q) - 'updated_at' ORDER BY q.position)
    FROM processing_queue q WHERE q.job_id = j.id
), ARRAY(
    SELECT a.token FROM processing_attempts a JOIN processing_queue q ON q.id = a.row_id
    WHERE q.job_id = j.id AND a.outcome IS NULL
), (
    SELECT count(*) FROM audit_log l
    WHERE l.entity_type = 'processing_job' AND l.entity_id = j.id
      AND l.action IN ('job_completed', 'job_failed', 'job_cancelled')
), ARRAY(
    SELECT d.resolution FROM dead_letters d WHERE d.job_id = j.id ORDER BY d.id
)
FROM processing_jobs j WHERE j.media_item_id = ANY(:items) ORDER BY j.id
""")
QueueRow = dict[str, Any]  #: as JSON


class Job(NamedTuple):
    """A job between two moves."""

    id: UUID
    status: JobStatus
    rows: list[QueueRow]
    open_tries: list[int]  #: tokens
    summaries: int
    letters: list[str | None]  #: what became of each dead letter, oldest first

    @property
    def states(self) -> list[TaskStatus]:
        return [TaskStatus(row["status"]) for row in self.rows]


Draw = Callable[[Sequence[Any]], Any]


class QueueMachine(RuleBasedStateMachine):
    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self.world = World(sessions)
        self.ends: Counter[UUID] = Counter()
        self.failures: Counter[UUID] = Counter()
        self.before: dict[UUID, Job] = {}
        self.made: Counter[str] = Counter()
        self.paused = ""  #: a lane

    def jobs(self, status: Collection[JobStatus]) -> list[UUID]:
        return [job.id for job in self.before.values() if job.status in status]

    def rows(self, status: Collection[TaskStatus]) -> list[QueueRow]:
        return [row for job in self.before.values() for row in job.rows if row["status"] in status]

    def idle(self) -> list[str]:
        return [worker for worker in WORKERS if worker not in {each.worker for each in self.world.holders}]

    @initialize(workflows=st.lists(st.sampled_from(WorkflowType), min_size=1, max_size=2))
    def begin(self, workflows: list[str]) -> None:
        for workflow in workflows:
            self._upload(workflow, 5, "sent")

    @rule(seed=st.integers(0, 2**32 - 1))
    def move(self, seed: int) -> None:
        """One of the moves that may change something now; what happens often in life does here.

        A move is one draw of hypothesis's: what it draws must not hang on what a server answered.
        """
        dice = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
        possible = [name for name, (weight, ready) in MOVES.items() if ready(self) for _ in range(weight)]
        if possible:
            name = dice.choice(possible)
            note(name)
            self.made[name] += 1
            getattr(self, name)(dice.choice)

    # People

    def upload(self, draw: Draw) -> None:
        workflow, optional = draw(list(WorkflowType)), draw([False, True])
        self._upload(workflow, draw(PRIORITIES), draw(SENDS), optional=optional)

    def _upload(self, workflow: str, priority: int, send: str, *, optional: bool = False) -> None:
        job_id = self.world.upload(workflow, priority, optional=optional)
        with self.world.sessions() as session:
            first = queue.due_row(session, job_id)
        assert first is not None
        self.world.publish(first, send)

    def cancel(self, draw: Draw) -> None:
        self.world.cancel(draw(self.jobs(JOB_ACTIVE)))

    def retry(self, draw: Draw) -> None:
        self.world.retry(draw(self.jobs(JOB_FINAL)), draw([None, *StageName]))
        self.world.publish_due(draw(SENDS))

    def redrive(self, draw: Draw) -> None:
        self.world.redrive(from_start=draw([False, True]))
        self.world.publish_due(draw(SENDS))

    def change_priority(self, draw: Draw) -> None:
        self.world.change_priority(draw(self.jobs(JOB_ACTIVE)), draw(PRIORITIES), draw(SENDS))

    def pause(self, draw: Draw) -> None:
        self.paused = draw(sorted({row["queue"] for row in self.rows(ACTIVE)}))
        self.world.pause(self.paused)

    def resume(self, _: Draw) -> None:
        self.world.resume(self.paused)
        self.paused = ""

    # Workers

    def deliver(self, draw: Draw) -> None:
        self.world.deliver(draw(self.world.bag), self.idle()[0])

    def succeed(self, draw: Draw) -> None:
        self.world.succeed(draw(self.world.holders), dies=draw([False, False, True]))

    def fail(self, draw: Draw) -> None:
        error, policy = draw([SLOW, SLOW, AWAY, BAD]), draw([AT_ONCE, AT_ONCE, IN_MINUTES, IN_DAYS])
        self.world.fail(draw(self.world.holders), error, policy, dies=draw([False, False, True]))

    def renew(self, draw: Draw) -> None:
        self.world.renew(draw(self.world.holders))

    def die(self, draw: Draw) -> None:
        self.world.die(draw(self.world.holders))

    def die_watched(self, draw: Draw) -> None:
        self.world.die_watched(draw(self.world.holders), crash=draw([True, False]))

    # The steward

    def look(self, _: Draw) -> None:
        self.world.look()

    def act(self, draw: Draw) -> None:
        self.world.act(draw(self.world.noticed))

    def publish_due(self, draw: Draw) -> None:
        self.world.publish_due(draw(SENDS))

    def give_up_on(self, draw: Draw) -> None:
        self.world.give_up_on(draw(self.world.bag))

    # Nobody

    def lease_ends(self, draw: Draw) -> None:
        self.world.lease_ends(UUID(draw(self.rows({TaskStatus.PROCESSING}))["id"]))
        if draw([True, False]):
            self.world.look()  # and acts on it later: the holder may have come back by then
            if self.world.holders and draw([True, False]):
                self.renew(draw)

    def overtake(self, draw: Draw) -> None:
        """A holder is away for long: the steward gives its row to another worker. It may come back."""
        holder = draw(self.world.holders)
        self.world.lease_ends(holder.claim.row_id)
        self._steward()
        for message in [each for each in self.world.bag if each.row_id == holder.claim.row_id][:1]:
            self.world.deliver(message, self.idle()[0])

    def time_passes(self, _: Draw) -> None:
        self.world.time_passes()

    def lose(self, draw: Draw) -> None:
        self.world.lose(draw(self.world.bag))

    def copy(self, draw: Draw) -> None:
        self.world.copy(draw(self.world.bag))

    # What must hold after each

    @invariant()
    def promises_hold(self) -> None:
        with self.world.sessions() as session:
            found = session.execute(LOOK, {"items": self.world.items})
            seen = {job.id: job for job in (Job(*row) for row in found)}
        for job in seen.values():
            _check_rows(job)
            self._check_end(job)
            if job.id in self.before and job.id not in self.world.revived:
                _check_nothing_final_changed(self.before[job.id], job)
            self._check_effects(job)
        self._check_tokens(seen)
        self._check_copies()
        self.before = seen
        self.world.revived.clear()

    def _check_end(self, job: Job) -> None:
        was_final = job.id in self.before and self.before[job.id].status in JOB_FINAL
        self.ends[job.id] += job.status in JOB_FINAL and not was_final
        self.failures[job.id] += job.status == JobStatus.FAILED and not was_final
        assert job.summaries == self.ends[job.id], "one summary for each end of a job"
        assert len(job.letters) == self.failures[job.id], "one dead letter for each failure"
        if job.status == JobStatus.FAILED:
            assert job.letters[-1] is None, "the dead letter of a failed job is open"
        else:
            assert None not in job.letters, "of no other job"

    def _check_tokens(self, seen: dict[UUID, Job]) -> None:
        assert self.world.tokens == sorted(set(self.world.tokens)), "tokens grow, and none is used twice"
        before = {row["id"]: row["token"] or 0 for job in self.before.values() for row in job.rows}
        for job in seen.values():
            for row in job.rows:
                assert (row["token"] or 0) >= before.get(row["id"], 0), "a row's token never falls"

    def _check_copies(self) -> None:
        living = Counter(message.row_id for message in self.world.bag)
        living.update(holder.message.row_id for holder in self.world.holders)
        for row_id, count in living.items():
            assert count <= 1 + self.world.faults[row_id], f"{count} copies of the message of {row_id}"

    def _check_effects(self, job: Job) -> None:
        for row, state in zip(job.rows, job.states, strict=True):
            row_id = UUID(row["id"])
            applied = self.world.effects[row_id, self.world.runs[row_id]]
            assert applied == (state == TaskStatus.COMPLETED), "completed is: its effect was applied, once"

    # The end of each example

    def teardown(self) -> None:
        """Without further faults every job ends, every message is used up, and nothing is sent any more."""
        try:
            self._come_to_rest()
        finally:
            self.world.forget()

    def _abandoned(self) -> set[UUID]:
        held = {holder.claim.row_id for holder in self.world.holders}
        return {UUID(row["id"]) for row in self.rows({TaskStatus.PROCESSING})} - held

    def _steward(self) -> None:
        self.world.look()
        for notice in list(self.world.noticed):
            self.world.act(notice)

    def _come_to_rest(self) -> None:
        if self.paused:
            self.world.resume(self.paused)
        for _ in range(60):
            self.world.time_passes()
            for row_id in self._abandoned():
                self.world.lease_ends(row_id)
            self._steward()
            for message in list(self.world.bag):
                self.world.deliver(message, "last")
            for holder in list(self.world.holders):
                self.world.succeed(holder)
            self.promises_hold()
            if not self.world.bag:
                if not self.jobs(JOB_ACTIVE):
                    return
                self._steward()
        raise AssertionError({job.id: job.states for job in self.before.values()}, self.world.bag)


def _waits(machine: QueueMachine) -> object:
    return any(row["published_at"] is None for row in machine.rows(DUE))


#: Each move with how often it is made, and when it may change something.
MOVES: dict[str, tuple[int, Callable[[QueueMachine], object]]] = {
    "upload": (2, lambda self: len(self.world.items) < UPLOADS),
    "cancel": (1, lambda self: self.jobs(JOB_ACTIVE) and self.made["cancel"] < FEW),
    "retry": (2, lambda self: self.jobs(JOB_FINAL) and self.made["retry"] < FEW),
    "redrive": (2, lambda self: self.jobs({JobStatus.FAILED}) and self.made["redrive"] < FEW),
    "change_priority": (1, lambda self: self.jobs(JOB_ACTIVE) and self.made["change_priority"] < FEW),
    "pause": (1, lambda self: self.rows(ACTIVE) and not self.paused and self.made["pause"] < FEW),
    "resume": (3, lambda self: self.paused),
    "deliver": (8, lambda self: self.world.bag and self.idle()),
    "succeed": (7, lambda self: self.world.holders),
    "fail": (3, lambda self: self.world.holders),
    "renew": (1, lambda self: self.world.holders),
    "die": (1, lambda self: self.world.holders),
    "die_watched": (3, lambda self: self.world.holders),
    "look": (4, lambda self: self.rows(AT_WORK)),
    "act": (6, lambda self: self.world.noticed),
    "publish_due": (2, _waits),
    "give_up_on": (1, lambda self: self.world.bag),
    "lease_ends": (3, lambda self: self.rows({TaskStatus.PROCESSING})),
    "overtake": (2, lambda self: self.world.holders and self.idle()),
    "time_passes": (2, lambda self: self.rows({TaskStatus.RETRYING})),
    "lose": (1, lambda self: self.world.bag),
    "copy": (1, lambda self: self.world.bag),
}


def _check_rows(job: Job) -> None:
    """The job is what its rows say; an active one has exactly one row at work, between done and waiting."""
    states = job.states
    assert job.status == derive_job_status(states, started=job.status != JobStatus.QUEUED), (job, states)
    at_work = [place for place, state in enumerate(states) if state in AT_WORK]
    assert len(at_work) == (job.status not in JOB_FINAL), (job.status, states)
    assert job.status not in JOB_FINAL or set(states) <= FINAL, (job.status, states)
    for place in at_work:
        assert set(states[:place]) <= {TaskStatus.COMPLETED, TaskStatus.SKIPPED}, states
        assert set(states[place + 1 :]) <= {TaskStatus.PENDING}, states
    leased = [row["token"] for row in job.rows if row["lease_expires_at"]]
    assert leased == [row["token"] for row in job.rows if row["status"] == TaskStatus.PROCESSING]
    assert job.open_tries == leased, "an attempt is open exactly while its row is at work"
    for row in job.rows:
        assert row["attempts"] <= row["max_attempts"]
        assert row["crashes"] <= row["max_crashes"]


def _check_nothing_final_changed(before: Job, now: Job) -> None:
    for earlier, later in zip(before.rows, now.rows, strict=True):
        assert earlier["status"] not in FINAL or earlier == later, "a final row changed by itself"


@pytest.mark.timeout(900)  # thousands of transactions: half a minute, and minutes where the machine is busy
def test_promises_hold_after_every_move_and_every_job_ends(sessions: Sessions) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: QueueMachine(sessions),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            phases=PHASES,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
