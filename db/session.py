"""Engines and sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from pipeline.errors import ConfigurationError, InfrastructureError

Sessions = sessionmaker[Session]

__all__ = [
    "Engine",
    "Session",
    "Sessions",
    "advisory_lock",
    "guarded",
    "make_engine",
    "ping",
    "session_factory",
]

#: No statement of the engine takes longer; an ad-hoc report sets its own.
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000


def make_engine(database_url: str, *, pool_size: int = 5) -> Engine:
    """An engine for ``database_url`` (a libpq URL) that holds at most ``pool_size`` connections.

    Dead connections are found before use, so that a restart of the server costs a reconnect, not an error.
    """
    try:
        url = make_url(database_url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            "DAILIES_DATABASE_URL is empty or no URL; it reads postgresql://user:password@host:port/database."
        ) from error
    options = (
        f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
        f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c timezone=UTC"
        # Who vanishes without a word gives up locks and slots within seconds, not after two hours.
        " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    )
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 10,
            "options": options,
            "application_name": "dailies",
            # A server that vanishes without a word is noticed within seconds, not after a quarter of an hour.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        },
    )


def session_factory(engine: Engine) -> Sessions:
    """Sessions on ``engine``; loaded objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def advisory_lock(engine: Engine, key: int) -> Iterator[bool]:
    """Try to hold the lock ``key`` for the block; yields whether it is held. No transaction stays open."""
    with engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        held = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        try:
            yield held
        finally:
            if held:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})


def ping(engine: Engine) -> None:
    """Raise InfrastructureError unless the database answers."""
    with guarded(), engine.connect() as connection:
        connection.execute(text("SELECT 1"))


#: SQLSTATE classes that say "not now": connection, resources, shutdown, lock timeout, deadlock.
_AWAY = ("08", "53", "57", "55P03", "40")


@contextmanager
def guarded() -> Iterator[None]:
    """Turn "the database is away" into InfrastructureError; a mistake of ours stays what it is."""
    try:
        yield
    except PoolTimeoutError as error:
        raise InfrastructureError(
            "No database connection became free in time.", code="DATABASE_UNAVAILABLE"
        ) from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        away = error.connection_invalidated or state.startswith(_AWAY)
        if away or (not state and isinstance(error, OperationalError | InterfaceError)):
            raise InfrastructureError(
                "The database does not answer; the work is tried again.", code="DATABASE_UNAVAILABLE"
            ) from error
        raise
