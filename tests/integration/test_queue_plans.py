"""No statement on the tables that grow reads one from end to end, with its values or prepared."""

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


def test_no_statement_reads_a_table_from_end_to_end(subject: Subject) -> None:
    subject.round()
    with subject.recorder.listening(subject.engine):
        subject.round()
    plans = subject.recorder.plans
    assert {plan.operation for plan in plans} == set(subject.seconds)
    assert [_told(plan) for plan in plans if plan.sequential] == []


def _told(plan: Plan) -> str:
    return f"{plan.operation}\n{plan.statement}\n{plan.told}\n{plan.generic}"
