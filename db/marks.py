"""What the steward remembers in the database: when it saw it last, how far its listings are, what it knows.

All times are the database's, so that stewards on several machines, and one that was started again, continue
each other's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.models import StewardMark

WATCHED = "watched"  #: when a steward last saw the database answer
RECOVERED = "recovered"  #: when it answered again after the last gap
ROUND = "round:"  #: and a crew's number: when it last began
SCAN_OBJECTS, SCAN_PICTURES = "scan:objects", "scan:pictures"
QUEUES_MADE = "queues-made"  #: when SQS says that each of our queues was made
SWEPT = "swept"  #: when the ephemeral queues were last looked at
EPHEMERAL = "queue:"  #: and a queue's name: its mark, and when that was first seen
#: Rounds further apart than this share of a lease are a gap. Leases are renewed at a third of their length,
#: so one that was kept at the start of a shorter pause can still be renewed after it.
GAP = 0.4


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether leases that have ended may be judged now."""

    allowed: bool
    spared_until: datetime  #: a lease that ended by then could not be renewed in time: it costs no crash


def watch(session: Session, *, lease: timedelta) -> Judgement:
    """Say that the database answers, and notice when it did not for a while. Called every few seconds."""
    now = session.scalar(select(func.clock_timestamp()))
    watched = session.get(StewardMark, WATCHED, with_for_update=True, populate_existing=True)
    if watched is None or now is None or now - watched.at > lease * GAP:
        put(session, RECOVERED)
    put(session, WATCHED)
    return judgement(session, lease=lease)


def judgement(session: Session, *, lease: timedelta) -> Judgement:
    """What ``watch`` would answer, without saying a word."""
    now, started = session.execute(select(func.clock_timestamp(), func.pg_postmaster_start_time())).one()
    watched, recovered = get(session, WATCHED), get(session, RECOVERED)
    spared_until = max(started, recovered.at if recovered else started) + lease
    in_view = watched is not None and now - watched.at <= lease * GAP
    return Judgement(in_view and now >= spared_until, spared_until)


def get(session: Session, name: str) -> StewardMark | None:
    """The mark as it is in the database."""
    return session.get(StewardMark, name, populate_existing=True)


def put(session: Session, name: str, value: str = "", *, at: datetime | None = None) -> None:
    """Write the mark, dated now unless told."""
    given = {"value": value, "at": at if at is not None else func.clock_timestamp()}
    session.execute(
        insert(StewardMark)
        .values(name=name, **given)
        .on_conflict_do_update(index_elements=["name"], set_=given)
    )


def age(session: Session, name: str) -> timedelta | None:
    """How long ago the mark is dated; None without one."""
    return session.scalar(select(func.clock_timestamp() - StewardMark.at).where(StewardMark.name == name))


def move(session: Session, name: str, value: str, *, seen: str | None) -> bool:
    """Write the mark unless somebody else has since it was ``seen`` (its value; None: there was none)."""
    mark = session.get(StewardMark, name, with_for_update=True, populate_existing=True)
    if (mark.value if mark is not None else None) != seen:
        return False
    put(session, name, value)
    return True


def remove(session: Session, name: str) -> None:
    """Forget the mark."""
    session.execute(delete(StewardMark).where(StewardMark.name == name))


def unchanged_since(
    session: Session, values: dict[str, str], *, prefix: str, anew: bool = False
) -> dict[str, timedelta]:
    """Take note of ``values`` by name; returns for how long each has been seen to be the same.

    ``anew`` forgets what was seen before: nobody has looked for too long. Marks below ``prefix`` that are not
    in ``values`` are forgotten.
    """
    known = {
        mark.name: mark
        for mark in session.scalars(
            select(StewardMark)
            .where(StewardMark.name.startswith(prefix, autoescape=True))
            .execution_options(populate_existing=True)
        )
    }
    if anew:
        _remove_all(session, known)
        known = {}
    named = {prefix + name: value for name, value in values.items()}
    _remove_all(session, known.keys() - named.keys())
    for name, value in named.items():
        if name not in known or known[name].value != value:
            put(session, name, value)
    now = session.scalar(select(func.clock_timestamp()))
    return {
        name: now - known[prefix + name].at
        if now is not None and prefix + name in known and known[prefix + name].value == value
        else timedelta(0)
        for name, value in values.items()
    }


def _remove_all(session: Session, names: Iterable[str]) -> None:
    for name in names:
        remove(session, name)
