"""What finds ended media items that are to be pruned, and the dead letters that are about them."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_media_items_ended", "media_items", "deleted_at", "deleted_at IS NOT NULL"),
    ("ix_media_items_ended_read", "media_items", "deleted_at", "deleted_at IS NOT NULL AND sha256 IS NOT NULL"),
    ("ix_dead_letters_media_item_id", "dead_letters", "media_item_id", "media_item_id IS NOT NULL"),
)


def upgrade() -> None:
    """Apply."""
    for name, table, column, where in INDEXES:
        op.create_index(name, table, [column], unique=False, postgresql_where=where)


def downgrade() -> None:
    """Take back."""
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table_name=table)
