"""Workers, resolved dead letters, attempts given back, and the indexes that pruning and listing need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OUTCOMES = "'cancelled', 'completed', 'failed', 'lost', {}'retrying', 'skipped'"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("lanes", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("concurrency", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('no_room', 'running', 'stopped', 'stopping')", name=op.f("ck_workers_state_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index("ix_workers_last_seen_at", "workers", ["last_seen_at"], unique=False)
    _replace_outcomes("'released', ")
    _extend_dead_letters()
    op.create_index(
        "ix_processing_jobs_completed_at",
        "processing_jobs",
        ["completed_at"],
        unique=False,
        postgresql_where="completed_at IS NOT NULL",
    )
    _create_steward_marks()
    _prepare_for_millions()


def _create_steward_marks() -> None:
    op.create_table(
        "steward_marks",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("value", sa.String(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_steward_marks")),
    )
    op.create_index(
        "ix_media_items_living_key",
        "media_items",
        ["bucket", "key"],
        unique=False,
        postgresql_ops={"key": "varchar_pattern_ops"},
        postgresql_where="deleted_at IS NULL",
    )
    op.create_index("ix_thumbnails_file_reference", "thumbnails", ["file_reference"], unique=False)


MILLIONS = ("processing_jobs", "processing_queue", "processing_attempts")
STORAGE = {
    "fillfactor": "85",
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_threshold": "2000",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_analyze_threshold": "2000",
}
LISTED_BY = (("processing_queue", "queue"), ("processing_queue", "job_type"), ("processing_jobs", "workflow_type"))


def _prepare_for_millions() -> None:
    """Index what people list by, take the lease out of the indexes, vacuum by the thousand."""
    for table, column in LISTED_BY:
        op.create_index(f"ix_{table}_{column}_id", table, [column, "id"], unique=False)
    op.drop_index("ix_processing_queue_leases", table_name="processing_queue")
    op.create_index(
        "ix_processing_queue_at_work",
        "processing_queue",
        ["worker"],
        unique=False,
        postgresql_where="status = 'processing'",
    )
    told = ", ".join(f"{name} = {value}" for name, value in STORAGE.items())
    for table in MILLIONS:
        op.execute(f"ALTER TABLE {table} SET ({told})")


def _take_millions_back() -> None:
    for table in MILLIONS:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(STORAGE)})")
    op.drop_index("ix_processing_queue_at_work", table_name="processing_queue")
    op.create_index(
        "ix_processing_queue_leases",
        "processing_queue",
        ["lease_expires_at"],
        unique=False,
        postgresql_where="status = 'processing'",
    )
    for table, column in LISTED_BY:
        op.drop_index(f"ix_{table}_{column}_id", table_name=table)


def _replace_outcomes(more: str) -> None:
    name = op.f("ck_processing_attempts_outcome_known")
    op.drop_constraint(name, "processing_attempts", type_="check")
    op.create_check_constraint(name, "processing_attempts", f"outcome IN ({OUTCOMES.format(more)})")


def _extend_dead_letters() -> None:
    op.add_column("dead_letters", sa.Column("resolution", sa.String(), nullable=True))
    op.add_column("dead_letters", sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("dead_letters", sa.Column("resolved_by", sa.String(), nullable=True))
    op.create_check_constraint(
        op.f("ck_dead_letters_resolution_known"), "dead_letters", "resolution IN ('purged', 'redriven')"
    )
    op.create_check_constraint(
        op.f("ck_dead_letters_resolved_iff_resolution"),
        "dead_letters",
        "(resolution IS NULL) = (resolved_at IS NULL)",
    )
    op.create_index("ix_dead_letters_created_at", "dead_letters", ["created_at"], unique=False)
    op.create_index(
        "ix_dead_letters_open",
        "dead_letters",
        ["job_type", "error_code", "id"],
        unique=False,
        postgresql_where="resolved_at IS NULL",
    )


def downgrade() -> None:
    """Take back. Attempts that were given back become cancelled ones: the older release knows no other word."""
    _take_millions_back()
    op.drop_index("ix_thumbnails_file_reference", table_name="thumbnails")
    op.drop_index("ix_media_items_living_key", table_name="media_items")
    op.drop_table("steward_marks")
    op.drop_index("ix_processing_jobs_completed_at", table_name="processing_jobs")
    op.drop_index("ix_dead_letters_open", table_name="dead_letters")
    op.drop_index("ix_dead_letters_created_at", table_name="dead_letters")
    for column in ("resolved_by", "resolved_at", "resolution"):
        op.drop_column("dead_letters", column)
    op.execute("UPDATE processing_attempts SET outcome = 'cancelled' WHERE outcome = 'released'")
    _replace_outcomes("")
    op.drop_table("workers")
