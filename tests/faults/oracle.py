"""What came of a run, read from the database and the buckets alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.keys import parse_thumbnail_key
from pipeline.states import FINAL, JobStatus, TaskStatus, derive_job_status
from pipeline.workflows import WorkflowType
from tests.faults.load import Asked, Upload
from tests.faults.stack import Stack

#: Whatever one of these answers is an effect that was applied twice, or half.
DOUBLED = {
    "ended job without exactly one summary": """
        SELECT j.id::text || ' ' || j.status || ' ' || count(a.audit_id) FROM processing_jobs j
        LEFT JOIN audit_log a ON a.entity_id = j.id AND a.action = 'job_' || j.status
        WHERE j.completed_at IS NOT NULL GROUP BY j.id HAVING count(a.audit_id) <> 1""",
    "summary of an end that is not the job's": """
        SELECT j.id::text || ' ' || a.action FROM processing_jobs j JOIN audit_log a ON a.entity_id = j.id
        WHERE a.action IN ('job_completed', 'job_failed', 'job_cancelled')
        AND a.action <> 'job_' || j.status""",
    "row with another number of completed attempts than its status says": """
        SELECT r.id::text || ' ' || r.job_type || ' ' || r.status || ' ' || count(t.token)
        FROM processing_queue r LEFT JOIN processing_attempts t ON t.row_id = r.id AND t.outcome = 'completed'
        GROUP BY r.id HAVING count(t.token) <> CASE WHEN r.status = 'completed' THEN 1 ELSE 0 END""",
    "completed row whose token is not its completed attempt's": """
        SELECT r.id::text FROM processing_queue r JOIN processing_attempts t ON t.row_id = r.id
        WHERE r.status = 'completed' AND t.outcome = 'completed' AND t.token <> r.token""",
    "failed job without exactly one dead letter": """
        SELECT j.id::text || ' ' || count(d.id) FROM processing_jobs j
        LEFT JOIN dead_letters d ON d.job_id = j.id
        WHERE j.status = 'failed' GROUP BY j.id HAVING count(d.id) <> 1""",
    "dead letter of a job that has not failed": """
        SELECT d.id::text FROM dead_letters d JOIN processing_jobs j ON j.id = d.job_id
        WHERE j.status <> 'failed'""",
    "key with more than one living item": """
        SELECT key FROM media_items WHERE deleted_at IS NULL GROUP BY bucket, key HAVING count(*) > 1""",
    "item with more than one ingest job": """
        SELECT media_item_id::text || ' ' || count(*) FROM processing_jobs WHERE workflow_type = 'ingest'
        GROUP BY media_item_id HAVING count(*) > 1""",
    "item without exactly three pictures": """
        SELECT i.key || ' ' || count(t.*) FROM media_items i
        JOIN processing_jobs j ON j.media_item_id = i.id AND j.workflow_type = 'ingest'
        LEFT JOIN thumbnails t ON t.media_item_id = i.id
        WHERE j.status = 'completed' AND i.deleted_at IS NULL AND i.duplicate_of_id IS NULL GROUP BY i.id
        HAVING count(t.*) <> 3""",
    "completed item that no search finds": """
        SELECT i.key FROM media_items i
        JOIN processing_jobs j ON j.media_item_id = i.id AND j.workflow_type = 'ingest'
        LEFT JOIN search_documents d ON d.media_item_id = i.id
        WHERE j.status = 'completed' AND i.deleted_at IS NULL AND d.media_item_id IS NULL""",
    "bytes without exactly one original": """
        SELECT i.sha256 FROM media_items i JOIN processing_jobs j
        ON j.media_item_id = i.id AND j.workflow_type = 'ingest' AND j.status = 'completed'
        WHERE i.deleted_at IS NULL GROUP BY i.sha256
        HAVING count(*) FILTER (WHERE i.holds_hash) <> 1
        OR count(*) FILTER (WHERE i.duplicate_of_id IS NULL) <> 1""",
}  # fmt: skip
#: Whatever one of these answers is a promise of the tables that does not hold.
BROKEN = {
    "ended job with an open attempt": """
        SELECT t.token::text FROM processing_attempts t JOIN processing_queue r ON r.id = t.row_id
        WHERE t.outcome IS NULL AND r.completed_at IS NOT NULL""",
    "row with more attempts of its own than its budget": """
        SELECT r.id::text FROM processing_queue r
        WHERE r.attempts > r.max_attempts OR r.crashes > r.max_crashes""",
}
#: A message of ours that was taken for somebody else's. Not asked where somebody else's were sent.
FOREIGN = {
    "message that nobody foreign has sent": """
        SELECT coalesce(queue, '') || ' ' || error_message FROM dead_letters WHERE reason = 'not_ours'"""
}
STATES = """
    SELECT j.id, j.status, array_agg(r.status ORDER BY r.position) FROM processing_jobs j
    JOIN processing_queue r ON r.job_id = j.id GROUP BY j.id"""
ENDS = """
    SELECT i.key, j.status, j.error_code FROM media_items i
    LEFT JOIN processing_jobs j ON j.media_item_id = i.id AND j.workflow_type = 'ingest'
    WHERE i.deleted_at IS NULL"""
EXECUTED = """
    SELECT j.media_item_id::text, r.job_type, count(*) FROM processing_queue r
    JOIN processing_jobs j ON j.id = r.job_id
    WHERE EXISTS (SELECT FROM processing_attempts t WHERE t.row_id = r.id) GROUP BY 1, 2"""
ASKED = "SELECT status FROM processing_jobs WHERE media_item_id = %s AND workflow_type = %s"
POINTED_AT = """
    SELECT t.file_reference, array_agg(a.token) FROM thumbnails t
    JOIN processing_jobs j ON j.media_item_id = t.media_item_id
    JOIN processing_queue r ON r.job_id = j.id AND r.job_type = 'thumbnails'
    JOIN processing_attempts a ON a.row_id = r.id AND a.outcome = 'completed' GROUP BY 1"""
SHOWN = 5  #: of each kind of finding


@dataclass
class Findings:
    """What the oracle saw."""

    submitted: int = 0
    completed: int = 0
    failed_as_expected: int = 0
    lost: list[str] = field(default_factory=list)  #: not final, not there, or not ended as expected
    duplicates: list[str] = field(default_factory=list)  #: effects applied twice or in part
    broken: list[str] = field(default_factory=list)  #: invariants of the tables
    executions: int = 0
    repeated: int = 0  #: executions beyond one a row: work done again, whose effect the fence kept out
    orphans: int = 0  #: objects that nothing points at (the sweep's work)

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be."""
        return [*self.lost, *self.duplicates, *self.broken]


def examine(
    stack: Stack, uploads: Sequence[Upload], asked: Iterable[Asked] = (), *, foreign: bool = False
) -> Findings:
    """Look at everything. ``foreign``: somebody else has sent messages too.

    No process need be running but the two servers.
    """
    found = Findings(submitted=len(uploads))
    _ends(stack, uploads, found)
    _asked(stack, asked, found)
    for name, query in DOUBLED.items():
        found.duplicates += _told(name, (row[0] for row in stack.sql(query)))
    for name, query in (BROKEN if foreign else BROKEN | FOREIGN).items():
        found.broken += _told(name, (row[0] for row in stack.sql(query)))
    _states(stack, found)
    _pictures(stack, found)
    _executions(stack, found)
    return found


def unfinished(stack: Stack, uploads: Sequence[Upload]) -> int:
    """How many uploads have no ended job yet, and how many other jobs have not ended."""
    ended = {key for key, status, _ in stack.sql(ENDS) if status and JobStatus(status) not in _ACTIVE}
    others: int = stack.sql("SELECT count(*) FROM processing_jobs WHERE completed_at IS NULL")[0][0]
    return max(sum(upload.key not in ended for upload in uploads), others)


_ACTIVE = {JobStatus.QUEUED, JobStatus.PROCESSING}


def _ends(stack: Stack, uploads: Sequence[Upload], found: Findings) -> None:
    ends: dict[str, list[tuple[str | None, str | None]]] = {}
    for key, status, code in stack.sql(ENDS):
        ends.setdefault(key, []).append((status, code))
    for upload in uploads:
        status, code = ends.get(upload.key, [(None, None)])[0]
        as_expected = status == upload.status and (not upload.codes or code in upload.codes)
        if not as_expected:
            found.lost.append(f"lost: {upload.key} is {status} {code or ''}, not {upload.status}")
        elif upload.status == JobStatus.COMPLETED:
            found.completed += 1
        else:
            found.failed_as_expected += 1


def _asked(stack: Stack, asked: Iterable[Asked], found: Findings) -> None:
    for one in asked:
        statuses = [row[0] for row in stack.sql(ASKED, [one.media_item_id, WorkflowType.REINDEX])]
        found.submitted += 1
        if not statuses or set(statuses) != {JobStatus.COMPLETED}:
            found.lost.append(f"lost: the job asked for on {one.media_item_id} is {statuses}")
        elif len(statuses) > one.tries:
            found.duplicates.append(f"{len(statuses)} jobs on {one.media_item_id} of {one.tries} requests")
        else:
            found.completed += 1


def _states(stack: Stack, found: Findings) -> None:
    for job_id, status, rows in stack.sql(STATES):
        states = [TaskStatus(row) for row in rows]
        derived = derive_job_status(states, started=status != JobStatus.QUEUED)
        if status != derived:
            found.broken.append(f"job {job_id} is {status}, its rows say {derived}")
        if sum(state not in FINAL | {TaskStatus.PENDING} for state in states) > 1:
            found.broken.append(f"job {job_id} has two rows at work: {rows}")


def _pictures(stack: Stack, found: Findings) -> None:
    there = set(objects(stack, stack.env["DAILIES_THUMBNAIL_BUCKET"]))
    pointed_at = set()
    for key, tokens in stack.sql(POINTED_AT):
        pointed_at.add(key)
        parsed = parse_thumbnail_key(key)
        if key not in there:
            found.duplicates.append(f"picture that is not there: {key}")
        if parsed is None or parsed.token not in tokens:
            found.duplicates.append(f"picture of an attempt that was not completed: {key}")
    found.orphans = len(there - pointed_at)


def _executions(stack: Stack, found: Findings) -> None:
    counted = executions(stack.counter)
    rows = {(item, stage): count for item, stage, count in stack.sql(EXECUTED)}
    found.executions = counted.total()
    found.repeated = sum(max(0, count - rows.get(what, 0)) for what, count in counted.items())


def executions(counter: Path) -> Counter[tuple[str, str]]:
    """How often each (media item, stage) was really executed, as the workers' stages have counted."""
    if not counter.exists():
        return Counter()
    lines = counter.read_text(encoding="utf-8").splitlines()
    fields = (line.split("\t") for line in lines)
    return Counter((item, stage) for _, _, stage, item, _ in fields)


def objects(stack: Stack, bucket: str) -> Iterable[str]:
    """Every key in a bucket."""
    for page in stack.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (one["Key"] for one in page.get("Contents", []))


def _told(name: str, found: Iterable[object]) -> list[str]:
    rows = [str(row) for row in found]
    shown = ", ".join(rows[:SHOWN]) + (" ..." if len(rows) > SHOWN else "")
    return [f"{name} ({len(rows)}): {shown}"] if rows else []
