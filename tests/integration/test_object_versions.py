"""Events of a key that has had many versions: what decides is found, at the cost of a new key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from db import events
from db.events import Applied, Budgets
from db.models import MediaItem
from pipeline.events import Change, ObjectEvent

KEY = "uploads/clock.jpg"
NEWEST = 10_000
#: Every other version is one of the key, ended, among those of others; the newest lives.
FILL = text("""
INSERT INTO media_items (id, bucket, key, version_id, sequencer, deleted_at, created_at)
SELECT uuidv7(make_interval(secs => n - :newest)), 'footage',
       CASE WHEN mod(n, 2) = 0 THEN :key ELSE 'uploads/' || n || '.jpg' END, 'v' || n,
       to_char(n, 'FM00000000'), CASE WHEN n < :newest THEN now() END,
       now() + make_interval(secs => n - :newest)
FROM generate_series(1, CAST(:newest AS integer)) n
""")
READS = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")


def _event(change: Change = Change.CREATED, **values: Any) -> ObjectEvent:
    given = {"bucket": "footage", "key": KEY, "size": 9, "etag": "e1", "sequencer": "0010"} | values
    return ObjectEvent(change=change, **given)


def _removal(**values: Any) -> ObjectEvent:
    return _event(Change.REMOVED, **({"size": None, "etag": None} | values))


def _apply(session: Session, told: ObjectEvent) -> Applied:
    return events.apply(session, told, Budgets())


@pytest.fixture
def overwritten(session: Session) -> Session:
    """A key that was overwritten thousands of times."""
    session.execute(FILL, {"newest": NEWEST, "key": KEY})
    session.execute(text("ANALYZE media_items"))
    return session


def _reads(plan: dict[str, Any]) -> float:
    """The rows that a plan's leaves have touched."""
    if below := plan.get("Plans"):
        return sum(map(_reads, below))
    return plan["Actual Loops"] * sum(plan.get(name, 0) for name in READS)


def _versions_of(told: list[tuple[str, Any]]) -> tuple[str, Any]:
    return next(one for one in told if "UNION ALL" in one[0])


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
def test_event_of_a_key_with_many_versions_reads_a_few_of_them(overwritten: Session, plans: str) -> None:
    told: list[tuple[str, Any]] = []
    connection = overwritten.connection()
    connection.exec_driver_sql(f"SET LOCAL plan_cache_mode = {plans}")

    @event.listens_for(connection, "before_cursor_execute")
    def note(*given: Any) -> None:
        told.append((given[2], given[3]))

    applied = _apply(overwritten, _event(version_id="v20", sequencer="00000020"))

    assert applied.what == "repeated"
    statement, values = _versions_of(told)
    explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar()
    found = explained if isinstance(explained, list) else json.loads(explained or "")
    assert 3 <= _reads(found[0]["Plan"]) <= 12, json.dumps(found, indent=1)


def test_event_of_a_key_with_many_versions_loads_a_few_of_them(overwritten: Session) -> None:
    loaded: list[object] = []
    event.listen(overwritten, "loaded_as_persistent", lambda _, found: loaded.append(found))

    assert _apply(overwritten, _event(version_id="v9000", sequencer="00008999")).what == "outdated"
    before = events.seen(overwritten, "footage", KEY)
    assert _apply(overwritten, _event(version_id="new", sequencer="00010001")).what == "created"
    assert events.drop(overwritten, "footage", KEY, before=before).what == "overtaken"

    items = [one for one in loaded if isinstance(one, MediaItem)]
    assert {item.version_id for item in items} == {"v9000", f"v{NEWEST}", "new"}


@pytest.mark.parametrize(
    ("last", "late"), [("00FF", "00fe"), ("00FF1", "00FF"), ("ff", "FE99"), ("0100", "00FFFFFF")]
)
def test_newest_version_is_known_behind_any_number_of_ends_that_say_nothing_of_order(
    session: Session, last: str, late: str
) -> None:
    """Sequencers of unequal length and case; what is created last is not what was heard of last."""
    _apply(session, _event(version_id="v2", sequencer=last))
    _apply(session, _removal(version_id="v2", sequencer="0000"))
    for number in range(25):
        _apply(session, _removal(version_id=f"old-{number}", sequencer="0000"))
    assert _apply(session, _event(version_id="v1", sequencer=late, etag="other")).what == "outdated"
    assert _apply(session, _event(version_id="v3", sequencer="FFFF", etag="other")).what == "created"


def test_version_that_ended_long_before_the_newest_is_known_to_have(session: Session) -> None:
    _apply(session, _removal(version_id="v1", sequencer="0009"))
    for number in range(2, 9):
        _apply(session, _event(version_id=f"v{number}", sequencer=f"00{number}", etag=f"e{number}"))
    before = events.seen(session, "footage", KEY)
    assert _apply(session, _event(version_id="v1", sequencer="0100")).what == "outdated"
    found = _event(version_id="v3", sequencer="", etag="e3")
    assert events.adopt(session, found, Budgets(), before=before, older=["v1", "v2"]).what == "outdated"
    assert _apply(session, _removal(version_id="v2", sequencer="0200")).what == "repeated"


def test_object_that_hides_known_and_unknown_versions_leaves_one_end_of_each(session: Session) -> None:
    for number in range(2, 6):
        _apply(session, _event(version_id=f"v{number}", sequencer=f"00{number}", etag=f"e{number}"))
    before = events.seen(session, "footage", KEY)
    found = _event(version_id="v6", sequencer="", etag="e6")
    adopted = events.adopt(session, found, Budgets(), before=before, older=["v5", "v4", "v3", "v2", "v1"])
    assert adopted.what == "created"
    assert _apply(session, _event(version_id="v1", sequencer="001")).what == "outdated"
