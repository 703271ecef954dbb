"""What the queue stands on: which errors mean that the database is away, and who holds a lock."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from db.models import QueueRow
from db.session import Sessions, advisory_lock, guarded, make_engine, ping
from pipeline.errors import ConfigurationError, InfrastructureError
from pipeline.workflows import StageName

KEY = 7_402_099


def _raise(session: Session, state: str) -> None:
    session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'made' USING ERRCODE = '{state}'; END $$"))


@pytest.mark.parametrize(
    "state",
    [
        "08006",  # connection failure
        "53300",  # too many connections
        "57P01",  # the server is shut down
        "57014",  # statement timeout
        "55P03",  # lock timeout
        "40P01",  # deadlock
        "40001",  # serialisation failure
    ],
)
def test_error_that_says_not_now_costs_no_attempt(session: Session, state: str) -> None:
    with pytest.raises(InfrastructureError) as caught, guarded():
        _raise(session, state)
    assert caught.value.code == "DATABASE_UNAVAILABLE"


def test_mistake_of_ours_stays_what_it_is(session: Session) -> None:
    with pytest.raises(ProgrammingError), guarded(), session.begin_nested():
        session.execute(text("SELECT nonsense"))
    row = QueueRow(job_id=uuid4(), job_type=StageName.INGEST, position=0, queue="q", status="queued")
    session.add(row)
    with pytest.raises(IntegrityError), guarded():
        session.flush()


def test_server_that_is_not_there_is_said_to_be_away() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:9/nothing", pool_size=1)
    with pytest.raises(InfrastructureError, match="does not answer"):
        ping(engine)
    engine.dispose()


@pytest.mark.parametrize("url", ["", "no url at all"])
def test_url_that_is_none_is_said_to_be_the_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DAILIES_DATABASE_URL"):
        make_engine(url)


def test_connection_that_was_cut_is_replaced(engine: Engine, database: str) -> None:
    own = make_engine(database, pool_size=1)
    with own.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    ping(own)
    own.dispose()


def test_connection_waits_for_nothing_for_ever(session: Session) -> None:
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    for limit in limits:
        assert session.scalar(text(f"SHOW {limit}")) != "0"
    assert session.scalar(text("SHOW timezone")) == "UTC"


def test_lock_is_held_by_one_and_given_back(engine: Engine, sessions: Sessions) -> None:
    with advisory_lock(engine, KEY) as first, advisory_lock(engine, KEY) as second:
        assert (first, second) == (True, False)
        with sessions() as session:  # no transaction is left open by whoever holds it
            assert (
                session.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                        " AND datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
                == 0
            )
    with pytest.raises(ZeroDivisionError), advisory_lock(engine, KEY):
        _ = 1 / 0
    with advisory_lock(engine, KEY) as again:
        assert again
