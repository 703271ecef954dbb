"""Counting queue rows, in a time that does not grow with the table.

Every count stops at a bound. Up to it a number is exact; beyond it, it is an estimate from the sample of the
last ANALYZE, and says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.models.queue import ACTIVE_SQL, DUE_SQL
from pipeline.states import FINAL, TaskStatus
from pipeline.workflows import StageName

#: Rows of one lane and status that are counted one by one: some 10 ms.
LIVING_BOUND = 30_000
#: Rows of one final status that are counted one by one, in the index alone.
FINISHED_BOUND = 1_000


@dataclass(frozen=True, slots=True)
class LivingRows:
    """Rows that are not final, counted by queue, stage and status."""

    queue: str
    job_type: StageName
    status: TaskStatus
    count: int
    due: int  #: of them queued or retrying, and due now
    published: int  #: of those due, with a message that is visible in the queue
    estimated: bool


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """Rows of one final status."""

    status: TaskStatus
    count: int
    estimated: bool


#: The lanes that have living rows, hopping from one to the next in the index ``active``.
_LANES = f"""
WITH RECURSIVE hop (queue) AS (
    (SELECT queue FROM processing_queue WHERE status IN ({ACTIVE_SQL}) ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT q.queue FROM processing_queue q
            WHERE q.status IN ({ACTIVE_SQL}) AND q.queue > hop.queue ORDER BY q.queue LIMIT 1)
    FROM hop WHERE hop.queue IS NOT NULL
), lane AS (SELECT queue FROM hop WHERE queue IS NOT NULL)
"""  # noqa: S608 - the states' names, from the code
_LIVING = text(
    f"""{_LANES}
SELECT lane.queue, part.job_type, kind.status, part.rows, part.due, part.published
FROM lane
CROSS JOIN unnest(ARRAY[{ACTIVE_SQL}]) AS kind (status)
CROSS JOIN LATERAL (
    SELECT job_type, count(*) AS rows, count(*) FILTER (WHERE is_due) AS due,
           count(*) FILTER (WHERE is_due AND is_published) AS published
    FROM (SELECT job_type, status IN ({DUE_SQL}) AND available_at <= statement_timestamp() AS is_due,
                 published_at <= statement_timestamp() AS is_published
          FROM processing_queue
          WHERE queue = lane.queue AND status = kind.status AND status IN ({ACTIVE_SQL})
          LIMIT :bound + 1) AS counted
    GROUP BY job_type
) AS part
"""  # noqa: S608 - the states' names, from the code
)
_OLDEST = text(
    f"""{_LANES}
SELECT lane.queue, extract(epoch FROM statement_timestamp() - oldest.available_at)
FROM lane
LEFT JOIN LATERAL (
    SELECT available_at FROM processing_queue
    WHERE queue = lane.queue AND status IN ({DUE_SQL}) AND available_at <= statement_timestamp()
    ORDER BY available_at LIMIT 1
) AS oldest ON true
"""  # noqa: S608 - the states' names, from the code
)

_FINISHED = " UNION ALL ".join(
    f"SELECT '{status}', count(*) FROM"  # noqa: S608 - the states' names, from the code
    f" (SELECT FROM processing_queue WHERE status = '{status}' LIMIT {{most}}) AS counted"
    for status in sorted(FINAL)
)
#: A count that stops at a bound needs a plan that can stop; where the planner underestimates, it has others.
_STOPPING = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
)
_SAMPLED = text(
    "SELECT common.status, common.share * greatest(t.reltuples, 0)"
    " FROM pg_class t"
    " JOIN pg_stats s ON s.tablename = t.relname AND s.schemaname = t.relnamespace::regnamespace::text,"
    " unnest(s.most_common_vals::text::text[], s.most_common_freqs) AS common (status, share)"
    " WHERE t.oid = 'processing_queue'::regclass AND s.attname = 'status'"
)


def count_living(session: Session, *, bound: int = LIVING_BOUND) -> list[LivingRows]:
    """The rows that are not final, by lane, stage and status; finished rows cost nothing.

    Where a lane has more than ``bound`` rows of a status, that many are counted, and the counts of the stages
    are made so much larger that the lane has what is expected of the status and no other lane has.
    """
    session.execute(_STOPPING)
    found = session.execute(_LIVING, {"bound": bound}).all()
    factors = _factors([(queue, status, count) for queue, _, status, count, *_ in found], session, bound)
    living: list[LivingRows] = []
    for queue, stage, status, *counts in found:
        factor = factors.get((queue, status))
        count, due, published = (round(each * (factor or 1.0)) for each in counts)
        estimated = factor is not None
        living.append(
            LivingRows(queue, StageName(stage), TaskStatus(status), count, due, published, estimated)
        )
    return living


def _factors(
    counted: list[tuple[str, str, int]], session: Session, bound: int
) -> dict[tuple[str, str], float]:
    """How many times more rows there are than were counted, by the lanes and statuses that went beyond."""
    totals: Counter[tuple[str, str]] = Counter()
    for queue, status, count in counted:
        totals[queue, status] += count
    beyond = {each for each, count in totals.items() if count > bound}
    expected = _expected(session) if beyond else {}
    factors: dict[tuple[str, str], float] = {}
    for queue, status in beyond:
        exact = sum(count for each, count in totals.items() if each[1] == status and each not in beyond)
        lanes = sum(each[1] == status for each in beyond)
        share = (expected.get(status, 0) - exact) / lanes
        factors[queue, status] = max(share / totals[queue, status], 1.0)
    return factors


def oldest_waiting(session: Session) -> dict[str, float | None]:
    """How many seconds the oldest due row of each lane has waited; None where none is due now.

    A lane that has no row which is not final is not in it.
    """
    found = session.execute(_OLDEST)
    return {queue: None if age is None else float(age) for queue, age in found}


def count_finished(session: Session, *, bound: int = FINISHED_BOUND) -> list[FinishedRows]:
    """The rows that are final, by status; beyond ``bound`` as many as are expected."""
    session.execute(_STOPPING)
    found = session.execute(text(_FINISHED.format(most=int(bound) + 1))).all()
    expected = _expected(session) if any(count > bound for _, count in found) else {}
    return [
        FinishedRows(
            TaskStatus(status), max(count, expected.get(status, 0) if count > bound else 0), count > bound
        )
        for status, count in found
    ]


def _expected(session: Session) -> dict[str, int]:
    """How many rows of each status the last ANALYZE has found, by its sample."""
    return {status: int(count) for status, count in session.execute(_SAMPLED)}
