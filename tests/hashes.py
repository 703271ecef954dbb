"""Perceptual hashes for tests: random ones, and others at a distance from them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session

from db import similar
from db.models import MediaItem
from tests.factories import add_item


def dice(seed: float) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def some_hash(seed: float) -> bytes:
    """256 bits, half of them set."""
    return flipped(bytes(32), dice(seed).sample(range(256), 128))


def flipped(bits: bytes, places: Iterable[int]) -> bytes:
    """``bits`` with those at ``places`` changed, counted from the most significant one."""
    whole = int.from_bytes(bits)
    for place in places:
        whole ^= 1 << 255 - place
    return whole.to_bytes(32)


def at(bits: bytes, distance: int, seed: float = 0) -> bytes:
    """A hash that differs from ``bits`` in ``distance`` of them."""
    return flipped(bits, dice(seed).sample(range(256), distance))


def add_hashed(session: Session, bits: bytes, *, quality: int = 100, **values: Any) -> MediaItem:
    """A media item that has a hash."""
    item = add_item(session, **values)
    similar.put(session, item.id, bits.hex(), quality)
    return item
