"""The newest version of a key, by S3's order of its events, found in one step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index(
        "ix_media_items_newest",
        "media_items",
        ["bucket", "key", sa.text("rtrim(upper(sequencer COLLATE \"C\"), '0')"), "id"],
        unique=False,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_media_items_newest", table_name="media_items")
