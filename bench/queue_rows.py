"""A table with a past: finished jobs as production leaves them, written by a few large statements.

Of a hundred jobs ninety-two ran their whole chain, four found a duplicate, two failed, two were cancelled;
six of seven are uploads, the rest runs of a shorter workflow. Times and ids reach ninety days back, in order.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from pipeline.workflows import STAGES_OF, WorkflowType

TABLES = ("media_items", "processing_jobs", "processing_queue", "processing_attempts")

#: Of the jobs; as PLAN draws them.
SHARES = {"thumbnails": 1 / 14, "reindex": 1 / 14, "ingest": 12 / 14}

#: One line a job: how it ended, where it ran, when.
PLAN = """
CREATE TEMP TABLE plan AS
SELECT n, uuidv7(back) AS item_id, uuidv7(back) AS job_id,
       CASE mod(n, 14) WHEN 0 THEN 'thumbnails' WHEN 7 THEN 'reindex' ELSE 'ingest' END AS workflow,
       CASE WHEN r < 92 THEN 'whole' WHEN r < 96 THEN 'duplicate' WHEN r < 98 THEN 'failed'
            ELSE 'cancelled' END AS fate,
       CASE WHEN l < 80 THEN 5 WHEN l < 95 THEN 2 ELSE 9 END AS priority,
       now() + back AS at
FROM (SELECT n, mod(abs(hashint8(n)::bigint), 100) AS l,
             mod(abs(hashint8(n * 7919)::bigint), 100) AS r,
             (n - {jobs}) * (interval '90 days' / {jobs}) AS back
      FROM generate_series(1, {jobs}::bigint) n) AS drawn
"""
STAGES = "CREATE TEMP TABLE stage (workflow text, position int, name text)"
ITEMS = """
INSERT INTO media_items (id, bucket, key, version_id, sequencer, etag, size_bytes, content_type, mime_type,
                         kind, sha256, holds_hash, width, height, thumbhash, metadata, created_at, updated_at)
SELECT item_id, 'storage', 'uploads/' || to_char(at, 'YYYY/MM/DD') || '/DSC_' || n || '.jpg',
       md5(n::text), to_char(n, 'FM0000000000'), md5(n::text), 3000000 + mod(n, 997), 'image/jpeg',
       'image/jpeg', 'image', encode(sha256(n::text::bytea), 'hex'), fate = 'whole', 4000, 3000,
       'F/gNHIZ3lYdQeHd7iJZmgHkGdw==',
       '{"camera": {"make": "NIKON CORPORATION", "model": "NIKON D800"}, "exposure": {"iso": 360.0}}', at, at
FROM plan ORDER BY n
"""
JOBS = """
INSERT INTO processing_jobs (id, media_item_id, workflow_type, status, priority, requested_by, error_code,
                             error_message, created_at, started_at, completed_at, updated_at)
SELECT job_id, item_id, workflow,
       CASE fate WHEN 'failed' THEN 'failed' WHEN 'cancelled' THEN 'cancelled' ELSE 'completed' END,
       priority, 'event', CASE WHEN fate = 'failed' THEN 'UNREADABLE_IMAGE' END,
       CASE WHEN fate = 'failed' THEN 'No decoder accepts the bytes.' END,
       at, at + interval '1 s', at + interval '9 s', at + interval '9 s'
FROM plan ORDER BY n
"""
ROWS = """
INSERT INTO processing_queue (id, job_id, job_type, position, queue, status, token, attempts, max_attempts,
                              crashes, max_crashes, available_at, published_at, worker, started_at,
                              completed_at, result, processor_version, error_code, error_message, created_at,
                              updated_at)
SELECT uuidv7(at - now()), job_id, name, position,
       CASE WHEN priority >= 8 THEN 'express' WHEN priority >= 4 THEN 'standard' ELSE 'bulk' END, status,
       CASE WHEN ran THEN nextval('processing_token_seq') END,
       (status = 'failed')::int, 3, 0, 3, at, CASE WHEN ran THEN at END,
       CASE WHEN ran THEN 'worker-' || mod(n, 16) || ':4711/' || 4712 + mod(n, 2) END,
       CASE WHEN ran THEN at END, at + interval '1 s',
       CASE WHEN status = 'completed' THEN
            '{"variants": [{"variant": "primary", "width": 1280, "height": 720, "bytes": 174845}]}'::jsonb
       END,
       CASE WHEN status = 'completed' THEN '1' END, CASE WHEN status = 'failed' THEN 'UNREADABLE_IMAGE' END,
       CASE WHEN status = 'failed' THEN 'No decoder accepts the bytes.' END, at, at + interval '1 s'
FROM (SELECT *, status IN ('completed', 'failed') AS ran
      FROM (SELECT plan.*, stage.name, stage.position,
                   CASE WHEN fate = 'duplicate' AND position > 1 THEN 'skipped'
                        WHEN fate = 'failed' AND position = 1 THEN 'failed'
                        WHEN fate IN ('failed', 'cancelled') AND position > 0 THEN 'cancelled'
                        ELSE 'completed' END AS status
            FROM plan JOIN stage USING (workflow)) AS drawn) AS row
ORDER BY n, position
"""
ATTEMPTS = """
INSERT INTO processing_attempts (token, row_id, worker, started_at, finished_at, outcome, error_code,
                                 error_message, duration_ms, cpu_ms)
SELECT token, id, worker, started_at, completed_at, status, error_code, error_message, 42, 40
FROM processing_queue WHERE token IS NOT NULL ORDER BY token
"""


def fill(connection: Connection, rows: int) -> None:
    """Add about ``rows`` finished rows with all that belongs to them. The tables must be empty.

    Runs in a transaction of its own; the indexes are built afterwards, then all is vacuumed and analysed.
    """
    per_job = sum(len(STAGES_OF[WorkflowType(name)]) * share for name, share in SHARES.items())
    jobs = round(rows / per_job)
    with connection.begin():
        indexes = _drop_indexes(connection)
        # No trigger and no foreign key is asked: what is written is consistent by its making.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL work_mem = '256MB'"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        connection.execute(text(STAGES))
        for workflow, stages in STAGES_OF.items():
            for position, name in enumerate(stages):
                connection.execute(
                    text("INSERT INTO stage VALUES (:workflow, :position, :name)"),
                    {"workflow": workflow, "position": position, "name": name},
                )
        for statement in (
            PLAN.format(jobs=jobs),
            ITEMS,
            JOBS,
            ROWS,
            ATTEMPTS,
            *indexes,
            "DROP TABLE plan, stage",
        ):
            connection.exec_driver_sql(statement)
    plain = connection.execution_options(isolation_level="AUTOCOMMIT")
    plain.execute(text("SET statement_timeout = 0"))
    plain.execute(text(f"VACUUM (ANALYZE) {', '.join(TABLES)}"))


def _drop_indexes(connection: Connection) -> list[str]:
    """Drop what can be built faster afterwards; returns the statements that build it."""
    found = connection.execute(
        text(
            "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i"
            " LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid"
            " WHERE c.oid IS NULL AND i.indrelid::regclass::text = ANY(:tables)"
        ),
        {"tables": list(TABLES)},
    ).all()
    for name, _ in found:
        connection.execute(text(f"DROP INDEX {name}"))
    return [definition for _, definition in found]
