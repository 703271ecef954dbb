"""What pictures look like: one perceptual hash for each media item that shows something."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Dialect, ForeignKey, Index, SmallInteger, TypeDecorator, text
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base
from pipeline.media.alike import WORDS


class Bits(TypeDecorator[bytes]):
    """``bit(256)`` as 32 bytes; the first bit of the column is the most significant of the first byte."""

    impl = BIT(256)
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:  # noqa: D102
        return None if value is None else f"{int.from_bytes(value):0256b}"

    def process_result_value(self, value: Any, _dialect: Dialect) -> Any:  # noqa: D102
        return None if value is None else int(value, 2).to_bytes(32)


#: SQL of each word of a hash.
WORD_SQL = tuple(f"(substring(hash from {first + 1} for {width})::integer)" for first, width in WORDS)


class PerceptualHash(Base):
    """The PDQ hash of a media item's picture. Duplicates by bytes have that of their original.

    Decision 0010 says how near ones are found by the indexes on its words.
    """

    __tablename__ = "perceptual_hashes"
    __table_args__ = (
        CheckConstraint("quality BETWEEN 0 AND 100", name="quality_is_a_share"),
        # Not partial ones: of those the planner does not use what ANALYZE found out about the expression.
        *(Index(f"ix_perceptual_hashes_word_{number}", text(sql)) for number, sql in enumerate(WORD_SQL)),
    )

    media_item_id: Mapped[UUID] = mapped_column(
        ForeignKey("media_items.id", ondelete="CASCADE"), primary_key=True
    )
    hash: Mapped[bytes] = mapped_column(Bits)  #: the lowest frequencies first: ``pipeline.media.alike``
    quality: Mapped[int] = mapped_column(SmallInteger)  #: 0 to 100; low: too little in it to compare it by
