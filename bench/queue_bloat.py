"""How much larger than what lives in them the tables are after many rows have gone through their life.

The steps of a row change what the product's own statements change, for some hundred rows at once: one by one,
a million of them would take hours. So they come a hundred times as fast as workers would send them, and
autovacuum looks after them every few seconds instead of every minute; everything else is as in production.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from pipeline.workflows import STAGES_OF, WorkflowType

STAGES = STAGES_OF[WorkflowType.INGEST]
BATCH = 200  #: jobs that take their steps together
WINDOW = 25  #: batches under way at once: some 30,000 living rows
NAPTIME_S = 5  #: autovacuum's, of which 60 is the default
TABLES = ("processing_queue", "processing_jobs", "processing_attempts")

ENQUEUE = """
WITH item AS (
    INSERT INTO media_items (id, bucket, key, size_bytes)
    SELECT uuidv7(), 'storage', 'uploads/' || gen_random_uuid() || '.jpg', 3000000
    FROM generate_series(1, :batch) RETURNING id
), job AS (
    INSERT INTO processing_jobs (id, media_item_id, workflow_type, status, priority, requested_by)
    SELECT uuidv7(), id, 'ingest', 'queued', 5, 'event' FROM item RETURNING id
), row AS (
    INSERT INTO processing_queue (id, job_id, job_type, position, queue, status, max_attempts, max_crashes)
    SELECT uuidv7(), job.id, stage.name, stage.place - 1, 'standard',
           CASE WHEN stage.place = 1 THEN 'queued' ELSE 'pending' END, 3, 3
    FROM job CROSS JOIN unnest(CAST(:stages AS text[])) WITH ORDINALITY AS stage (name, place)
    ORDER BY job.id, stage.place
)
SELECT id FROM job
"""
PUBLISH = """
UPDATE processing_queue SET published_at = clock_timestamp()
WHERE job_id = ANY(:jobs) AND position = :position AND status = 'queued' AND published_at IS NULL
"""
START_JOBS = """
UPDATE processing_jobs SET status = 'processing', started_at = now()
WHERE id = ANY(:jobs) AND status = 'queued'
"""
CLAIM = """
WITH claimed AS (
    UPDATE processing_queue
    SET status = 'processing', token = nextval('processing_token_seq'), worker = 'host:4711/4712',
        started_at = clock_timestamp(), lease_expires_at = clock_timestamp() + interval '60 s'
    WHERE job_id = ANY(:jobs) AND position = :position RETURNING id, token, worker
)
INSERT INTO processing_attempts (token, row_id, worker) SELECT token, id, worker FROM claimed
"""
HEARTBEAT = """
UPDATE processing_queue SET lease_expires_at = clock_timestamp() + interval '60 s'
WHERE job_id = ANY(:jobs) AND position = :position AND lease_expires_at IS NOT NULL
"""
COMPLETE = """
WITH done AS (
    UPDATE processing_queue
    SET status = 'completed', completed_at = clock_timestamp(), lease_expires_at = NULL,
        processor_version = '1',
        result = '{"variants": [{"variant": "primary", "width": 1280, "height": 720, "bytes": 174845}]}'
    WHERE job_id = ANY(:jobs) AND position = :position RETURNING token
)
UPDATE processing_attempts
SET finished_at = clock_timestamp(), outcome = 'completed', duration_ms = 42, cpu_ms = 40
FROM done WHERE done.token = processing_attempts.token
"""
ADVANCE = """
UPDATE processing_queue SET status = 'queued', available_at = clock_timestamp(), published_at = NULL
WHERE job_id = ANY(:jobs) AND position = :position + 1
"""
FINISH_JOBS = """
UPDATE processing_jobs SET status = 'completed', completed_at = clock_timestamp() WHERE id = ANY(:jobs)
"""
SIZES = text(
    "SELECT pg_table_size(relid), pg_indexes_size(relid), n_tup_upd, n_tup_hot_upd, autovacuum_count"
    " FROM pg_stat_user_tables WHERE relname = :table"
)


@dataclass(frozen=True)
class Size:
    """One table, in bytes: as it became, and as it is when it was written anew."""

    table: str
    heap: int
    indexes: int
    heap_anew: int
    indexes_anew: int
    updates: int
    hot_updates: int  #: of them those that changed no index
    vacuums: int

    @property
    def ratio(self) -> float:
        """How many times larger than what lives in it."""
        return (self.heap + self.indexes) / (self.heap_anew + self.indexes_anew)


def measure(engine: Engine, rows: int, *, say: Callable[[str], object]) -> list[Size]:
    """Take ``rows`` rows through their life, and compare the tables with themselves, written anew."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER SYSTEM SET autovacuum_naptime = '{NAPTIME_S}s'"))
        connection.execute(text("SELECT pg_reload_conf()"))
        connection.execute(text("SET statement_timeout = 0"))
        started = time.perf_counter()
        _live(connection, rows // (BATCH * len(STAGES)), say)
        say(f"{rows:,} rows have lived in {time.perf_counter() - started:.0f} s")
        time.sleep(2 * NAPTIME_S)  # the last of them are vacuumed as the first were, and counted
        grown = {table: connection.execute(SIZES, {"table": table}).one() for table in TABLES}
        connection.execute(text(f"VACUUM (FULL) {', '.join(TABLES)}"))
        anew = {table: connection.execute(SIZES, {"table": table}).one() for table in TABLES}
    return [Size(table, *grown[table][:2], *anew[table][:2], *grown[table][2:]) for table in TABLES]


def _live(connection: Connection, batches: int, say: Callable[[str], object]) -> None:
    """A window of batches, each a step further in each turn."""
    under_way: deque[Iterator[None]] = deque()
    begun = 0
    while under_way or begun < batches:
        if begun < batches and len(under_way) < WINDOW:
            under_way.append(_life(connection))
            begun += 1
            if begun % 100 == 0:
                say(f"batch {begun} of {batches}")
        for _ in range(len(under_way)):
            life = under_way.popleft()
            if next(life, "over") is None:
                under_way.append(life)


def _life(connection: Connection) -> Iterator[None]:
    """The life of one batch, step by step."""
    given = {"batch": BATCH, "stages": list(STAGES)}
    jobs = list(connection.scalars(text(ENQUEUE), given))
    yield
    for position in range(len(STAGES)):
        steps = (PUBLISH, *([START_JOBS] if position == 0 else []), CLAIM, HEARTBEAT, COMPLETE, ADVANCE)
        for step in steps:
            connection.execute(text(step), {"jobs": jobs, "position": position})
            yield
    connection.execute(text(FINISH_JOBS), {"jobs": jobs})


def markdown(found: list[Size]) -> str:
    """The sizes as a table."""
    head = ("table", "heap MB", "indexes MB", "heap anew", "indexes anew", "ratio", "HOT updates", "vacuums")
    lines: list[tuple[object, ...]] = [head, ("---", *["---:"] * (len(head) - 1))]
    for size in found:
        parts = (size.heap, size.indexes, size.heap_anew, size.indexes_anew)
        megabytes = [f"{part / 1e6:.1f}" for part in parts]
        hot = f"{size.hot_updates / size.updates:.0%} of {size.updates:,}" if size.updates else "none"
        lines.append((size.table, *megabytes, f"**{size.ratio:.2f}**", hot, size.vacuums))
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
