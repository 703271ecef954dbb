"""No statement reads the table of rows from end to end, neither with its values nor prepared."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from bench import queue_rows
from bench.queue_operations import Subject
from bench.queue_plans import Plan
from db.session import Sessions

ROWS = 20_000


@pytest.fixture
def subject(sessions: Sessions, engine: Engine) -> Subject:
    """A database with a past, and a few jobs that wait."""
    with engine.connect() as connection:
        queue_rows.fill(connection, ROWS)
    subject = Subject(engine)
    subject.wait_in_line()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ANALYZE {', '.join(queue_rows.TABLES)}"))
    return subject


def test_no_statement_reads_the_rows_from_end_to_end(subject: Subject) -> None:
    subject.round()
    with subject.recorder.listening(subject.engine):
        subject.round()
    plans = subject.recorder.plans
    assert {plan.operation for plan in plans} == set(subject.seconds)
    assert [_told(plan) for plan in plans if plan.reads_whole("processing_queue")] == []


def _told(plan: Plan) -> str:
    return f"{plan.operation}\n{plan.statement}\n{plan.told}\n{plan.generic}"
