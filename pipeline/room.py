"""Whether this machine has room for another file."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.settings import Settings
from pipeline.spool import Spool, is_in_use


def why_no_room(settings: Settings) -> str | None:
    """Why nothing more may be downloaded here, as a sentence; None where there is room.

    Both bounds are asked: the disk below the spool, and what the spool itself may hold.
    """
    spool = Path(settings.spool_dir)
    spool.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(spool).free
    if free < settings.room_margin:
        return (
            f"The disk of {spool} has {free / 1e6:,.0f} MB left, less than the margin of"
            f" {settings.room_margin / 1e6:,.0f} MB (DAILIES_ROOM_MARGIN); free some."
        )
    if _too_full(spool, int(settings.spool_limit)):
        return (
            f"{spool} is full of what is being worked on: it may hold {settings.spool_limit / 1e6:,.0f} MB;"
            " raise DAILIES_SPOOL_LIMIT or wait."
        )
    return None


def _too_full(spool: Path, limit: int) -> bool:
    """Whether the copies in use alone fill the spool; those that are not go when room is needed."""
    copies, filled = list(Spool(spool, limit).copies()), limit * Spool.FILLED
    if sum(size for _, size, _ in copies) < filled:
        return False
    return sum(size for _, size, path in copies if is_in_use(path)) >= filled
