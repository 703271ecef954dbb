"""What files say, and what pictures look like: title and text; a perceptual hash, found by its words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WIDTHS = (19,) * 4 + (18,) * 10


def upgrade() -> None:
    """Apply."""
    op.add_column("media_items", sa.Column("title", sa.String(), nullable=True))
    op.add_column("media_items", sa.Column("text", sa.String(), server_default="", nullable=False))
    op.create_table(
        "perceptual_hashes",
        sa.Column("media_item_id", sa.Uuid(), nullable=False),
        sa.Column("hash", postgresql.BIT(256), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint(
            "quality BETWEEN 0 AND 100", name=op.f("ck_perceptual_hashes_quality_is_a_share")
        ),
        sa.ForeignKeyConstraint(
            ["media_item_id"],
            ["media_items.id"],
            name=op.f("fk_perceptual_hashes_media_item_id_media_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("media_item_id", name=op.f("pk_perceptual_hashes")),
    )
    first = 1
    for number, width in enumerate(WIDTHS):
        op.create_index(
            f"ix_perceptual_hashes_word_{number}",
            "perceptual_hashes",
            [sa.text(f"(substring(hash from {first} for {width})::integer)")],
            unique=False,
        )
        first += width


def downgrade() -> None:
    """Take back."""
    op.drop_table("perceptual_hashes")
    op.drop_column("media_items", "text")
    op.drop_column("media_items", "title")
