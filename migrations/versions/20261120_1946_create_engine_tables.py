"""Create the engine's tables: media items, jobs, queue rows, attempts, dead letters, pictures, search, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


TOUCHED = ("media_items", "processing_jobs", "processing_queue", "search_documents")

FUNCTIONS = """
CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END $$;

CREATE FUNCTION audit_log_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

-- Makes the partition of the month that holds ``day``; doing it twice, or at once, changes nothing.
-- Entries of that month that had to go to the default partition move to it.
CREATE FUNCTION audit_log_ensure_partition(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz := date_trunc('month', day::timestamp) AT TIME ZONE 'UTC';
    past timestamptz := (date_trunc('month', day::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    name text := 'audit_log_' || to_char(day, 'YYYY_MM');
    bound text := format('FOR VALUES FROM (%L) TO (%L)', first, past);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(name, 0));
    IF to_regclass(name) IS NOT NULL THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM audit_log_default WHERE created_at >= first AND created_at < past) THEN
        ALTER TABLE audit_log DETACH PARTITION audit_log_default;
        EXECUTE format('CREATE TABLE %I PARTITION OF audit_log %s', name, bound);
        INSERT INTO audit_log SELECT * FROM audit_log_default WHERE created_at >= first AND created_at < past;
        DELETE FROM audit_log_default WHERE created_at >= first AND created_at < past;
        ALTER TABLE audit_log ATTACH PARTITION audit_log_default DEFAULT;
    ELSE
        EXECUTE format('CREATE TABLE %I PARTITION OF audit_log %s', name, bound);
    END IF;
    -- Row triggers come with the partition, statement triggers do not.
    EXECUTE format(
        'CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON %I'
        ' FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change()', name
    );
END $$;
"""

TRIGGERS = """
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_refuse_change();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change();
-- Where the steward was away for months, entries land here instead of being refused.
CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log_default
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse_change();
SELECT audit_log_ensure_partition((date_trunc('month', now()) + make_interval(months => n))::date)
    FROM generate_series(0, 2) n;
"""


def upgrade() -> None:
    """Apply."""
    op.execute(FUNCTIONS)
    op.execute(sa.schema.CreateSequence(sa.Sequence("processing_token_seq")))
    op.create_table(
        "audit_log",
        sa.Column("audit_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("entity_type", sa.String(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("field_name", sa.String(), nullable=True),
        sa.Column("old_value", sa.String(), nullable=True),
        sa.Column("new_value", sa.String(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("user_email", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), server_default="system", nullable=False),
        sa.Column("ip_address", postgresql.INET(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("audit_id", "created_at", name=op.f("pk_audit_log")),
        postgresql_partition_by="RANGE (created_at)",
    )
    op.create_index("ix_audit_log_created_at", "audit_log", ["created_at"], unique=False)
    op.create_index("ix_audit_log_entity", "audit_log", ["entity_type", "entity_id"], unique=False)
    op.create_table(
        "media_items",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version_id", sa.String(), server_default="", nullable=False),
        sa.Column("sequencer", sa.String(), server_default="", nullable=False),
        sa.Column("etag", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("content_type", sa.String(), nullable=True),
        sa.Column("entity_type", sa.String(), server_default="media_item", nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=True),
        sa.Column("mime_type", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("holds_hash", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("duplicate_of_id", sa.Uuid(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("duration_seconds", sa.Double(), nullable=True),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latitude", sa.Double(), nullable=True),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.Column("thumbhash", sa.String(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("warnings", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by", sa.String(), nullable=True),
        sa.Column("deleted_reason", sa.String(), nullable=True),
        sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("restored_by", sa.String(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "NOT (holds_hash AND (sha256 IS NULL OR duplicate_of_id IS NOT NULL))",
            name=op.f("ck_media_items_holder_is_original"),
        ),
        sa.CheckConstraint(
            "NOT (holds_hash AND deleted_at IS NOT NULL)", name=op.f("ck_media_items_holder_lives")
        ),
        sa.CheckConstraint("duplicate_of_id <> id", name=op.f("ck_media_items_not_its_own_duplicate")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_media_items_size_not_negative")),
        sa.ForeignKeyConstraint(
            ["duplicate_of_id"],
            ["media_items.id"],
            name=op.f("fk_media_items_duplicate_of_id_media_items"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media_items")),
        sa.UniqueConstraint("bucket", "key", "version_id", name=op.f("uq_media_items_bucket_key_version_id")),
    )
    op.create_index(
        "ix_media_items_duplicate_of_id",
        "media_items",
        ["duplicate_of_id"],
        unique=False,
        postgresql_where="duplicate_of_id IS NOT NULL",
    )
    op.create_index(
        "ix_media_items_sha256",
        "media_items",
        ["sha256"],
        unique=False,
        postgresql_where="sha256 IS NOT NULL",
    )
    op.create_index(
        "ix_media_items_entity",
        "media_items",
        ["entity_type", "entity_id"],
        unique=False,
        postgresql_where="entity_id IS NOT NULL",
    )
    op.create_index(
        "uq_media_items_hash_holder", "media_items", ["sha256"], unique=True, postgresql_where="holds_hash"
    )
    op.create_table(
        "paused_lanes",
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_paused_lanes")),
    )
    op.create_table(
        "processing_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("media_item_id", sa.Uuid(), nullable=False),
        sa.Column("workflow_type", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("warnings", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'failed')) = (completed_at IS NOT NULL)",
            name=op.f("ck_processing_jobs_completed_at_iff_final"),
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'completed', 'failed', 'processing', 'queued')",
            name=op.f("ck_processing_jobs_status_known"),
        ),
        sa.CheckConstraint(
            "workflow_type IN ('ingest', 'reindex', 'thumbnails')",
            name=op.f("ck_processing_jobs_workflow_type_known"),
        ),
        sa.CheckConstraint("priority BETWEEN 1 AND 10", name=op.f("ck_processing_jobs_priority_in_range")),
        sa.ForeignKeyConstraint(
            ["media_item_id"],
            ["media_items.id"],
            name=op.f("fk_processing_jobs_media_item_id_media_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processing_jobs")),
    )
    op.create_index("ix_processing_jobs_media_item_id", "processing_jobs", ["media_item_id"], unique=False)
    op.create_index("ix_processing_jobs_status_id", "processing_jobs", ["status", "id"], unique=False)
    op.create_index(
        "uq_processing_jobs_active",
        "processing_jobs",
        ["media_item_id", "workflow_type"],
        unique=True,
        postgresql_where="status IN ('processing', 'queued')",
    )
    op.create_table(
        "search_documents",
        sa.Column("media_item_id", sa.Uuid(), nullable=False),
        sa.Column("entity_type", sa.String(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("keywords", sa.String(), server_default="", nullable=False),
        sa.Column("body", sa.String(), server_default="", nullable=False),
        sa.Column("facets", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "document",
            postgresql.TSVECTOR(),
            sa.Computed(
                "setweight(to_tsvector('simple', title), 'A') || setweight(to_tsvector('english', title), 'A') || setweight(to_tsvector('simple', keywords), 'B') || setweight(to_tsvector('english', body), 'D')",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_item_id"],
            ["media_items.id"],
            name=op.f("fk_search_documents_media_item_id_media_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("media_item_id", name=op.f("pk_search_documents")),
    )
    op.create_index(
        "ix_search_documents_document", "search_documents", ["document"], unique=False, postgresql_using="gin"
    )
    op.create_table(
        "thumbnails",
        sa.Column("thumbnail_id", sa.Uuid(), nullable=False),
        sa.Column("entity_type", sa.String(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("size_variant", sa.String(), nullable=False),
        sa.Column("media_item_id", sa.Uuid(), nullable=False),
        sa.Column("file_reference", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("file_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_type", sa.String(), server_default="image/jpeg", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "processed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["media_item_id"],
            ["media_items.id"],
            name=op.f("fk_thumbnails_media_item_id_media_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("thumbnail_id", name=op.f("pk_thumbnails")),
        sa.UniqueConstraint(
            "media_item_id", "size_variant", name=op.f("uq_thumbnails_media_item_id_size_variant")
        ),
    )
    op.create_table(
        "processing_queue",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("job_type", sa.String(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), nullable=False),
        sa.Column("crashes", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("max_crashes", sa.SmallInteger(), nullable=False),
        sa.Column(
            "available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("processor_version", sa.String(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_processing_queue_lease_iff_processing"),
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'failed', 'skipped')) = (completed_at IS NOT NULL)",
            name=op.f("ck_processing_queue_completed_at_iff_final"),
        ),
        sa.CheckConstraint(
            "job_type IN ('audit', 'dedupe', 'index', 'ingest', 'metadata', 'thumbnails')",
            name=op.f("ck_processing_queue_job_type_known"),
        ),
        sa.CheckConstraint(
            "status <> 'processing' OR token IS NOT NULL",
            name=op.f("ck_processing_queue_token_while_processing"),
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'completed', 'failed', 'pending', 'processing', 'queued', 'retrying', 'skipped')",
            name=op.f("ck_processing_queue_status_known"),
        ),
        sa.CheckConstraint(
            "attempts >= 0 AND crashes >= 0", name=op.f("ck_processing_queue_budgets_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["processing_jobs.id"],
            name=op.f("fk_processing_queue_job_id_processing_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processing_queue")),
        sa.UniqueConstraint("job_id", "position", name=op.f("uq_processing_queue_job_id_position")),
        sa.UniqueConstraint("token", name=op.f("uq_processing_queue_token")),
    )
    op.create_index(
        "ix_processing_queue_active",
        "processing_queue",
        ["queue", "status"],
        unique=False,
        postgresql_where="status IN ('pending', 'processing', 'queued', 'retrying')",
    )
    op.create_index(
        "ix_processing_queue_due",
        "processing_queue",
        ["queue", "available_at"],
        unique=False,
        postgresql_where="status IN ('queued', 'retrying')",
    )
    op.create_index(
        "ix_processing_queue_leases",
        "processing_queue",
        ["lease_expires_at"],
        unique=False,
        postgresql_where="status = 'processing'",
    )
    op.create_index("ix_processing_queue_status_id", "processing_queue", ["status", "id"], unique=False)
    op.create_index(
        "ix_processing_queue_unpublished",
        "processing_queue",
        ["available_at"],
        unique=False,
        postgresql_where="status IN ('queued', 'retrying') AND published_at IS NULL",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("row_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("media_item_id", sa.Uuid(), nullable=True),
        sa.Column("queue", sa.String(), nullable=True),
        sa.Column("job_type", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("dead_lettered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "reason IN ('attempts_exhausted', 'not_ours', 'permanent_error', 'worker_lost')",
            name=op.f("ck_dead_letters_reason_known"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["processing_jobs.id"],
            name=op.f("fk_dead_letters_job_id_processing_jobs"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["media_item_id"],
            ["media_items.id"],
            name=op.f("fk_dead_letters_media_item_id_media_items"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["row_id"],
            ["processing_queue.id"],
            name=op.f("fk_dead_letters_row_id_processing_queue"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index("ix_dead_letters_job_id", "dead_letters", ["job_id"], unique=False)
    op.create_index("ix_dead_letters_row_id", "dead_letters", ["row_id"], unique=False)
    op.create_index(
        "ix_dead_letters_unsent",
        "dead_letters",
        ["created_at"],
        unique=False,
        postgresql_where="dead_lettered_at IS NULL",
    )
    op.create_table(
        "processing_attempts",
        sa.Column("token", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row_id", sa.Uuid(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("cpu_ms", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('cancelled', 'completed', 'failed', 'lost', 'retrying', 'skipped')",
            name=op.f("ck_processing_attempts_outcome_known"),
        ),
        sa.CheckConstraint(
            "(outcome IS NULL) = (finished_at IS NULL)",
            name=op.f("ck_processing_attempts_finished_iff_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["row_id"],
            ["processing_queue.id"],
            name=op.f("fk_processing_attempts_row_id_processing_queue"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_processing_attempts")),
    )
    op.create_index("ix_processing_attempts_row_id", "processing_attempts", ["row_id"], unique=False)
    op.execute(TRIGGERS)
    for table in TOUCHED:
        op.execute(
            f"CREATE TRIGGER {table}_set_updated_at BEFORE UPDATE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION set_updated_at()"
        )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_processing_attempts_row_id", table_name="processing_attempts")
    op.drop_table("processing_attempts")
    op.drop_index(
        "ix_dead_letters_unsent", table_name="dead_letters", postgresql_where="dead_lettered_at IS NULL"
    )
    op.drop_index("ix_dead_letters_row_id", table_name="dead_letters")
    op.drop_index("ix_dead_letters_job_id", table_name="dead_letters")
    op.drop_table("dead_letters")
    op.drop_index(
        "ix_processing_queue_unpublished",
        table_name="processing_queue",
        postgresql_where="status IN ('queued', 'retrying') AND published_at IS NULL",
    )
    op.drop_index("ix_processing_queue_status_id", table_name="processing_queue")
    op.drop_index(
        "ix_processing_queue_leases", table_name="processing_queue", postgresql_where="status = 'processing'"
    )
    op.drop_index(
        "ix_processing_queue_due",
        table_name="processing_queue",
        postgresql_where="status IN ('queued', 'retrying')",
    )
    op.drop_index(
        "ix_processing_queue_active",
        table_name="processing_queue",
        postgresql_where="status IN ('pending', 'processing', 'queued', 'retrying')",
    )
    op.drop_table("processing_queue")
    op.drop_table("thumbnails")
    op.drop_index("ix_search_documents_document", table_name="search_documents", postgresql_using="gin")
    op.drop_table("search_documents")
    op.drop_index(
        "uq_processing_jobs_active",
        table_name="processing_jobs",
        postgresql_where="status IN ('processing', 'queued')",
    )
    op.drop_index("ix_processing_jobs_status_id", table_name="processing_jobs")
    op.drop_index("ix_processing_jobs_media_item_id", table_name="processing_jobs")
    op.drop_table("processing_jobs")
    op.drop_table("paused_lanes")
    op.drop_index("uq_media_items_hash_holder", table_name="media_items", postgresql_where="holds_hash")
    op.drop_index("ix_media_items_entity", table_name="media_items", postgresql_where="entity_id IS NOT NULL")
    op.drop_index(
        "ix_media_items_duplicate_of_id",
        table_name="media_items",
        postgresql_where="duplicate_of_id IS NOT NULL",
    )
    op.drop_index("ix_media_items_sha256", table_name="media_items", postgresql_where="sha256 IS NOT NULL")
    op.drop_table("media_items")
    op.drop_index("ix_audit_log_entity", table_name="audit_log")
    op.drop_index("ix_audit_log_created_at", table_name="audit_log")
    op.drop_table("audit_log")
    op.execute(sa.schema.DropSequence(sa.Sequence("processing_token_seq")))
    op.execute("DROP FUNCTION set_updated_at, audit_log_refuse_change, audit_log_ensure_partition")
